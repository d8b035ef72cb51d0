"""Workflows: their definitions, and the runs of them."""
