"""One module a command: its usage text, its wiring, what it prints. No packet logic."""
