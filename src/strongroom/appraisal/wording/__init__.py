"""The sentences of checks: made of their names and data where somebody reads them."""
