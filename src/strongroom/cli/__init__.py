"""The command line: one module per verb. Exit codes live here alone."""
