"""The settings table, read once."""
