"""Compose files whose services become rooms."""
