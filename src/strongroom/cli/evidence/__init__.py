"""Verbs of evidence and measurements."""
