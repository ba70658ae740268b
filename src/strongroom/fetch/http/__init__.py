"""HTTP to services: bounded in size and time, addresses looked at first."""
