"""One module per command: its help, its arguments, what it does."""
