"""The HTTP API: parses, authenticates, calls one service, renders."""
