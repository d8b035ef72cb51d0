"""Why a request came to nothing; never leaves this package."""


class RequestProblem(Exception):
    """``name`` is what the step's error is called. The text holds no path, query or header: they may hold secrets."""

    def __init__(self, name: str, text: str, reason: str = "failed") -> None:
        super().__init__(text)
        self.name = name
        self.text = text
        self.reason = reason
