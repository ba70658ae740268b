"""The memory guard: a process whose memory the host's other processes cannot read."""
