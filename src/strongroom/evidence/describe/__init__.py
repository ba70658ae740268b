"""What evidence says, for people: parsed, never verified."""
