"""Durable state: rows in one SQL database, SQLite or PostgreSQL, behind the protocols of ``base``."""
