"""The program in the base that turns a booted TEE into a room."""
