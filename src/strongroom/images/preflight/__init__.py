"""What an image will meet in a room, said before it runs."""
