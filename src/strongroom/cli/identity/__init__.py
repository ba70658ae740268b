"""Verbs of identities."""
