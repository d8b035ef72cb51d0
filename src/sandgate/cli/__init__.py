"""The command ``sandgate``."""
