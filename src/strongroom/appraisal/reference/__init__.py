"""Reference values: what a vendor or builder says good evidence looks like."""
