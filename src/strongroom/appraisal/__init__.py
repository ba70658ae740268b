"""Claims, policy and reference values to a verdict."""
