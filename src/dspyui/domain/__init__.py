"""What the program is about: frozen models and protocols. Imports no framework and nothing of ours but errors."""
