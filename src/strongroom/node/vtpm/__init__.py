"""The room's TPM: created, provisioned, and its state kept."""
