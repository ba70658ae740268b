"""Parts put together: which store, clock, randomness and network a program uses."""
