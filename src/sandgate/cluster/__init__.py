"""Which host holds an environment."""
