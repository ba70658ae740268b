"""Compose files: every key known by name."""
