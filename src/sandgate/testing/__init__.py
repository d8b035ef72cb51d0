"""Stand-ins for the real mechanisms, held to the same contract suites, for tests and for measuring."""
