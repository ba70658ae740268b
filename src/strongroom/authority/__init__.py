"""A broker's certificate authority: what certificates of rooms say (their X.509 profile), and their issue."""
