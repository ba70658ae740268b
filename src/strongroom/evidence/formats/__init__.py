"""Formats that TEEs and clouds share. Each parser raises only `Malformed`."""
