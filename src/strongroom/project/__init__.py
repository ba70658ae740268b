"""One Compose file and what it becomes: rooms under one contract, drafted for several parties or kept up for one owner."""
