"""Runtimes: what makes sandboxes and runs code in them, behind the protocols of ``base``."""
