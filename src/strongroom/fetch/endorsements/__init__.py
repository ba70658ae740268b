"""Vendors' endorsements: fetched, kept, and told old from new."""
