"""X.509: certificates, requests, lists of revoked ones, OCSP."""
