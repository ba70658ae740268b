"""What a release consists of, each part the same bytes from the same commit: `make dist`."""
