"""Verbs of the ledger and proofs."""
