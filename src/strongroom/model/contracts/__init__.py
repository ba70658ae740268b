"""The contract: what parties agree, draft, sign and merge."""
