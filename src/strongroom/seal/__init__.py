"""Sealed disks: erofs, AES-XTS, dm-verity, and their manifests."""
