"""The room's certificate on its way to the program: files, and whether the program took them."""
