"""Rooms in AWS Nitro enclaves."""
