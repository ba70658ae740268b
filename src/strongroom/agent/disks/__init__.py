"""A room's sealed disks: device mapper, NBD, superblocks, and reads that failed."""
