"""Many streams over one connection between a room and its node: states, credit and the loop that moves the bytes."""
