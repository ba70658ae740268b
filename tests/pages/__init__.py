"""What pages say is held to what the program does: commands, links, help, codes."""
