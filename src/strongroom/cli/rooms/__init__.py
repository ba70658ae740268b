"""Verbs of nodes and rooms."""
