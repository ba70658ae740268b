"""The host's side of a room's network: where its streams lead, and where they come from."""
