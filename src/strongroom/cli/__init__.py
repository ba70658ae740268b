"""The command line: one file per verb. Exit codes live here alone."""
