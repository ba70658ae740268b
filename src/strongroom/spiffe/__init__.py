"""The SPIFFE Workload API: how an unmodified program in a room gets the room's certificate, and each that follows it."""
