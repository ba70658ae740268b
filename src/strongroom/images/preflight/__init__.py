"""What an image will meet in a room, told beforehand."""
