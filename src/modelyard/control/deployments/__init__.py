"""Services: what is wanted of them, how they get there, every revision they had."""
