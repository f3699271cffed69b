"""The HTTP API, and the door that pages and API stand behind."""
