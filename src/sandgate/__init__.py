"""sandgate: run untrusted code in isolated environments behind an HTTP API."""

__version__ = "0.1.0"
