"""Reading from services: bounded, pinned, never on the way to a verdict."""
