"""OCI images to sealed disks: source, layers, tree, disk."""
