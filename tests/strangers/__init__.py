"""Files as strangers have them, each with its right answer, read where they stand beside the project."""
