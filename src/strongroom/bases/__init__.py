"""Debian packages to the measured base: what a room boots."""
