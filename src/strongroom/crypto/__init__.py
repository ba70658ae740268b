"""Cryptography: the only importer of `cryptography` and `pyrage`."""
