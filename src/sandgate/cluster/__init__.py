"""The servers that share a database."""
