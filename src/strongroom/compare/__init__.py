"""Two bases, images or contracts side by side."""
