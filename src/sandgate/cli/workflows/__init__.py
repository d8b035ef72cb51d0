"""``sandgate workflow``: definitions from files, and runs while they happen."""
