"""Certificates after they were issued: which are remembered and revoked, and how a broker says so."""
