"""Evidence to claims: one file per TEE. Pure: no network, no clock."""
