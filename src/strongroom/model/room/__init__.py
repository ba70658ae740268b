"""What node and agent share: the channel, the run's files, the places in a room."""
