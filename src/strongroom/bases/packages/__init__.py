"""What a base is made of: Debian's packages, Python's wheels, modules."""
