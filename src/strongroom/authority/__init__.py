"""Certificates: profile and issue."""
