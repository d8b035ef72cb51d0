"""What users and API keys may be called."""

import re

from sandgate.core.errors import InvalidRequest

LONGEST_NAME = 64
LONGEST_LABEL = 100

_NAME = re.compile(rf"[A-Za-z0-9._@-]{{1,{LONGEST_NAME}}}")


def is_user_name(name: str) -> bool:
    """Whether a user can have this name."""
    return _NAME.fullmatch(name) is not None


def check_user_name(name: str) -> None:
    """Raises ``InvalidRequest`` unless a user can have this name."""
    if not is_user_name(name):
        raise InvalidRequest.for_fields([("name", f"must be 1 to {LONGEST_NAME} of A-Z a-z 0-9 . _ @ -")])


def check_label(label: str) -> None:
    """Raises ``InvalidRequest`` unless an API key can have this label."""
    if not 1 <= len(label) <= LONGEST_LABEL or not label.isprintable():
        raise InvalidRequest.for_fields([("label", f"must have 1 to {LONGEST_LABEL} printable characters")])
