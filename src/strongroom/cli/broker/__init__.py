"""Verbs of the broker."""
