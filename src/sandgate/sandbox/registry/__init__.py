"""Fetches images from registries, over HTTP and only from addresses that the administrator lets be reached."""
