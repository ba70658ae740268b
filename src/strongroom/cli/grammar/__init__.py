"""The command line as data, and what is written from it: completions of three shells, and the manual page."""
