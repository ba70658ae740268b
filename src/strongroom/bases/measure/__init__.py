"""Measurements predicted from files, one file per TEE: what a genuine platform will report for this base."""
