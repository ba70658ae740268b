"""SQL storage; implements the protocols that the broker declares."""
