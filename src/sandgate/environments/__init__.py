"""The use cases of environments, executions and templates."""
