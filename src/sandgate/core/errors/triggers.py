"""Refusals about schedules and webhooks."""

from sandgate.core.errors.base import NotFound, TooManyRequests


class ScheduleNotFound(NotFound):
    """No schedule of the caller has this id."""

    code = "SCHEDULE_NOT_FOUND"


class WebhookNotFound(NotFound):
    """No webhook of the caller has this id."""

    code = "WEBHOOK_NOT_FOUND"


class HookNotFound(NotFound):
    """No webhook takes this request: the address is unknown, disabled, or the signature is wrong or too old."""

    code = "HOOK_NOT_FOUND"


class TooManyTriggers(TooManyRequests):
    """The user has as many schedules, or as many webhooks, as the setting allows."""

    code = "TOO_MANY_TRIGGERS"


class TooManyDeliveries(TooManyRequests):
    """The webhook was called more often than the setting allows."""

    code = "TOO_MANY_DELIVERIES"
