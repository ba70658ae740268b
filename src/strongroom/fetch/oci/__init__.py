"""OCI registries and layouts: pull, push, signatures."""
