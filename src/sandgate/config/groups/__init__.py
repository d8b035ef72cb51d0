"""The settings table in groups, each a model of its own; ``sandgate.config.settings`` puts them together."""
