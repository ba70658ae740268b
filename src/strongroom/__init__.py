"""Strongroom: run one party's program over another party's data where neither, nor the operator, can look."""

__version__ = "0.1.0"
