"""Fakes of the other side, each with its own certificate authority. Never in the product wheel."""
