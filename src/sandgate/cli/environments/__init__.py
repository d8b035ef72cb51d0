"""The commands about environments: their life, code, files and terminals."""
