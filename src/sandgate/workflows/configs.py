"""``config`` of a step: one reader for each type."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime

from sandgate.core.workflow import Json, StepType
from sandgate.workflows import names
from sandgate.workflows.expressions import OPENING, kind
from sandgate.workflows.fields import Fields
from sandgate.workflows.parts import read_template
from sandgate.workflows.problems import below
from sandgate.workflows.reading import Reading, StepScope
from sandgate.workflows.uses import Scope

CONFIG_KEYS: Mapping[StepType, tuple[str, ...]] = {
    StepType.CODE_EXECUTION: ("code", "language", "template", "environment_id", "inputs"),
    StepType.HTTP: ("method", "url", "headers", "body", "expect"),
    StepType.SLEEP: ("seconds", "until"),
    StepType.APPROVAL: ("message", "approvers"),
    StepType.WORKFLOW: ("workflow_id", "inputs"),
}

_STEP_KEYS = ("timeout", "retry", "env", "needs", "if", "foreach", "strategy")
_ELSEWHERE = {key: f"`{key}` stands beside `config`, not in it" for key in _STEP_KEYS}


def read_config(owner: Fields, kind_of_step: StepType, reading: Reading, scope: StepScope) -> Mapping[str, Json]:
    """The member ``config``, complete: what defaults say is in it."""
    if "config" not in owner and kind_of_step is not StepType.APPROVAL:
        owner.require("config")
        return {}
    raw = owner.raw("config") if "config" in owner else {}
    fields = Fields(raw, owner.at("config"), reading.problems, CONFIG_KEYS[kind_of_step], _ELSEWHERE)
    if not isinstance(raw, dict):
        return {}
    added = _READERS[kind_of_step](fields, reading, scope)
    return {**raw, **added}


def guess_type(config: Json) -> StepType | None:
    """The type whose `config` has most of the keys of this one, if it has any: what a step without a type may be."""
    if not isinstance(config, dict):
        return None
    best = max(CONFIG_KEYS, key=lambda type_: len(config.keys() & CONFIG_KEYS[type_]))
    return best if config.keys() & CONFIG_KEYS[best] else None


def _read_code(fields: Fields, reading: Reading, scope: StepScope) -> Mapping[str, Json]:
    fields.require("code")
    fields.text("code", names.MAX_DEFINITION_BYTES)
    fields.name("language", names.LANGUAGE, names.LANGUAGE_RULE)
    template = read_template(fields, reading)
    environment = fields.text("environment_id", names.MAX_ADDRESS, least=1)
    if environment is not None:
        reading.uses.add_text(fields.at("environment_id"), environment, scope.plain())
    if "template" in fields and "environment_id" in fields:
        fields.refuse("template", "The environment that `environment_id` names has its own template; leave one out")
    inputs = fields.mapping("inputs", names.MAX_INPUTS)
    reading.uses.add_value(fields.at("inputs"), dict(inputs), scope.secret())
    default = reading.defaults.template
    takes_default = template is None and "environment_id" not in fields and default is not None
    return {"template": default} if takes_default else {}


def _read_http(fields: Fields, reading: Reading, scope: StepScope) -> Mapping[str, Json]:
    fields.require("url")
    fields.choice("method", names.HTTP_METHODS)
    address = fields.text("url", names.MAX_ADDRESS, least=1)
    if address is not None:
        reading.uses.add_text(fields.at("url"), address, scope.secret())
        if not address.startswith(("https://", "http://", OPENING)):
            fields.refuse("url", "has to start with https:// or http://")
        if re.match(r"https?://[^/?#]*@", address):
            fields.refuse("url", "has a user or a password in it; put credentials into a header")
    for name, value in fields.mapping("headers", names.MAX_HEADERS).items():
        _read_header(below(fields.at("headers"), name), name, value, reading, scope)
    reading.uses.add_value(fields.at("body"), fields.raw("body"), scope.secret())
    for index, status in enumerate(fields.items("expect", names.MAX_STATUSES)):
        if isinstance(status, bool) or not isinstance(status, int) or not 100 <= status <= 599:
            reading.problems.add(below(fields.at("expect"), index), "has to be a status, from 100 to 599")
    return {} if "method" in fields else {"method": "GET"}


def _read_header(pointer: str, name: str, value: Json, reading: Reading, scope: StepScope) -> None:
    if not re.fullmatch(names.HEADER_NAME, name):
        reading.problems.add(pointer, "This is no name of a header")
    if name.lower() in names.OWN_HEADERS:
        reading.problems.add(pointer, "This header is set by the service; leave it out")
    if not isinstance(value, str):
        reading.problems.add(pointer, f"has to be a text, not {kind(value)}")
    elif any(sign in value for sign in "\r\n\x00"):
        reading.problems.add(pointer, "A header is one line")
    else:
        reading.uses.add_text(pointer, value, scope.secret())


def _read_sleep(fields: Fields, reading: Reading, scope: StepScope) -> Mapping[str, Json]:
    if ("seconds" in fields) == ("until" in fields):
        reading.problems.add(fields.pointer, "Either `seconds` or `until` is required, not both")
    if isinstance(fields.raw("seconds"), str):
        _read_whole(fields, "seconds", "a number", reading, scope.plain())
    else:
        fields.number("seconds", 0, names.LONGEST_SLEEP_S)
    until = fields.text("until", names.MAX_ADDRESS)
    if until is not None and OPENING in until:
        reading.uses.add_text(fields.at("until"), until, scope.plain())
    elif until is not None and not _is_time(until):
        fields.refuse("until", "has to be a time with its offset, as in 2026-01-31T08:00:00Z")
    return {}


def _read_whole(fields: Fields, key: str, wanted: str, reading: Reading, scope: Scope) -> None:
    """A text that stands where its value is no text: it has to be one whole expression."""
    template = reading.uses.add_text(fields.at(key), str(fields.raw(key)), scope)
    if template is not None and template.whole is None:
        fields.refuse(key, f"has to be {wanted}, or one whole ${{{{ … }}}}")


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _read_approval(fields: Fields, reading: Reading, scope: StepScope) -> Mapping[str, Json]:
    message = fields.text("message", names.MAX_DESCRIPTION)
    if message is not None:
        reading.uses.add_text(fields.at("message"), message, scope.plain())
    if "approvers" in fields and fields.raw("approvers") == []:
        fields.refuse("approvers", "names nobody; leave it out and everybody who may start the workflow may approve")
    for index, name in enumerate(fields.items("approvers", names.MAX_APPROVERS)):
        if not isinstance(name, str) or not 1 <= len(name) <= names.MAX_LABEL:
            reading.problems.add(below(fields.at("approvers"), index), "has to be the name of a user")
    return {}


def _read_workflow(fields: Fields, reading: Reading, scope: StepScope) -> Mapping[str, Json]:
    fields.require("workflow_id")
    fields.name("workflow_id", f"{names.WORKFLOW_ID}|{names.SELF}", names.WORKFLOW_ID_RULE)
    inputs = fields.mapping("inputs", names.MAX_INPUTS)
    reading.uses.add_value(fields.at("inputs"), dict(inputs), scope.plain())
    return {}


_READERS: Mapping[StepType, Callable[[Fields, Reading, StepScope], Mapping[str, Json]]] = {
    StepType.CODE_EXECUTION: _read_code,
    StepType.HTTP: _read_http,
    StepType.SLEEP: _read_sleep,
    StepType.APPROVAL: _read_approval,
    StepType.WORKFLOW: _read_workflow,
}
