"""The JSON that goes in and comes out."""
