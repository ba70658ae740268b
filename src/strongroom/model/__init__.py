"""The nouns: parties, contract, manifest, evidence, claims, verdict, receipt. Frozen dataclasses."""
