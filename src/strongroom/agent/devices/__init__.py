"""One file per TEE: how the agent binds the contract to the hardware and makes evidence."""
