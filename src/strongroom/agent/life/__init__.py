"""A room that lives: its clock, its renewals, what ends it, and when its program is started again."""
