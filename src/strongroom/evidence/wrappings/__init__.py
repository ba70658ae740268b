"""Wrappings in which people have evidence: dumps, texts, trees, vendors' forms."""
