"""Tunnels: mutual TLS 1.3 that ends inside both rooms, bound to their evidence before a program's first byte."""
