"""Verbs about a Compose file and its rooms."""
