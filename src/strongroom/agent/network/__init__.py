"""A program's network: listeners in its own network namespace, and streams of the room's channel behind them. No card, no resolver."""
