"""The owner's key broker: challenge, release, receipt."""
