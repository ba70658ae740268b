"""ACME (RFC 8555) by attestation: what its messages say, and who may be who. No input or output, no clock."""
