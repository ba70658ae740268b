"""Vendors' endorsements: fetched, kept, and old distinguished from new."""
