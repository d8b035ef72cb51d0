"""Refusals about templates that are built."""

from sandgate.core.errors.base import Conflict, TooManyRequests
from sandgate.core.errors.requests import PayloadTooLarge


class TemplateNameTaken(Conflict):
    """A template that is the server's own, or everybody's, has this name."""

    code = "TEMPLATE_NAME_TAKEN"


class TemplateInUse(Conflict):
    """It is needed by as many ``environments``, live ``runs`` of workflows and ``snapshots`` as ``details`` has."""

    code = "TEMPLATE_IN_USE"


class NoUploadAwaited(Conflict):
    """The template is not being built, or its build waits for no archive."""

    code = "NO_UPLOAD_AWAITED"


class RecipeTooLarge(PayloadTooLarge):
    """The files, the variables or the archive of a recipe are larger than allowed; ``details`` has ``limit_bytes``."""

    code = "RECIPE_TOO_LARGE"


class TooManyTemplates(TooManyRequests):
    """You have as many built templates as one user may; ``details`` has ``limit``. Delete one."""

    code = "TOO_MANY_TEMPLATES"


class TooManyLiveTemplates(TooManyRequests):
    """Your environments and steps are of as many built templates as allowed; ``details`` has ``limit`` and ``used``."""

    code = "TOO_MANY_LIVE_TEMPLATES"


class TooManyBuilds(TooManyRequests):
    """As many templates as allowed are being built; ``details`` has ``limit`` and ``scope``: ``user``, ``server``."""

    code = "TOO_MANY_BUILDS"
