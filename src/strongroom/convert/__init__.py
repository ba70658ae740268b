"""OCI images to sealed disks; Debian packages to the measured base."""
