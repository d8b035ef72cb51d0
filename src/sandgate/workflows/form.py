"""Holds a definition against its published schema, so that nothing is accepted that an editor would have marked.

The parser goes further, and says it better: what it says stands, and only what it left unsaid is added.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import chain
from typing import NamedTuple

from jsonschema_rs import Draft202012Validator, ValidationError, ValidationErrorKind

from sandgate.core.workflow import InputType, Json
from sandgate.workflows.expressions import kind
from sandgate.workflows.inputs import WANTED
from sandgate.workflows.problems import Problems, below
from sandgate.workflows.schema import definition_schema
from sandgate.workflows.suggestions import shown

# Whatever the library says comes with a copy of what it is about, and all of it at once: in the square of the size.
_MOST_VALUES = 300


class _Complaint(NamedTuple):
    """``spread`` ones are about a value as a whole, where the parser points at a part of it."""

    pointer: str
    words: str
    spread: bool = False


class Form:
    """A schema, compiled. What stands as ``description`` where it refuses something says what would be right."""

    def __init__(self, schema: Mapping[str, Json]) -> None:
        self._schema = schema
        # What a format means is left to the parser: validators differ in it. Nothing is ever fetched.
        self._validator = Draft202012Validator(dict(schema), validate_formats=False, offline=True)

    def add_problems(self, raw: Json, problems: Problems) -> None:
        """Note what the schema refuses and nobody has noted yet, in time that grows with the size of ``raw``.

        Of a large definition that is refused anyway, nothing is added. ``raw`` is JSON as bodies are parsed, without
        half of a surrogate pair. Raises ``TooManyProblems``.
        """
        if self._validator.is_valid(raw):
            return
        noted = {problem.pointer for problem in problems}
        around = set(chain.from_iterable(map(_with_those_above, noted)))
        for complaint in dict.fromkeys(self._complaints(raw, is_refused=bool(problems))):
            if complaint.pointer not in (around if complaint.spread else noted):
                problems.add(complaint.pointer, complaint.words)

    def _complaints(self, raw: Json, *, is_refused: bool) -> Iterator[_Complaint]:
        errors = list(self._errors(raw, is_refused=is_refused))
        left_out = {_pointer_of(error) for error in errors if isinstance(error.kind, ValidationErrorKind.FalseSchema)}
        for complaint in chain.from_iterable(map(self._told, errors)):
            if left_out.isdisjoint(_with_those_above(complaint.pointer.rpartition("/")[0])):
                yield complaint

    def _errors(self, raw: Json, *, is_refused: bool) -> Iterator[ValidationError]:
        if _is_small(raw):
            yield from self._validator.iter_errors(raw)
        elif not is_refused:
            try:
                self._validator.validate(raw)
            except ValidationError as error:
                yield error

    def _told(self, error: ValidationError) -> Iterator[_Complaint]:
        pointer, kinds = _pointer_of(error), ValidationErrorKind
        match error.kind:
            case kinds.AdditionalProperties(unexpected):
                for name in unexpected:
                    yield _Complaint(below(pointer, name), f"There is no key {shown(name)} here")
            case kinds.PropertyNames(of_name):
                words = f"The name has to be {self._description(error, 'propertyNames')}"
                yield _Complaint(below(pointer, str(of_name.instance)), words)
            case kinds.Required(name):
                # Also what one member asks for beside it.
                yield _Complaint(pointer, f"{shown(name)} is required", error.schema_path[-1] == "dependentRequired")
            case kinds.UniqueItems():
                yield _Complaint(pointer, "has something in it twice", spread=True)
            case kinds.Not(schema):
                described = schema.get("description") if isinstance(schema, dict) else None
                yield _Complaint(pointer, f"may not be {described or 'like this'}", spread=True)
            case kinds.AnyOf() | kinds.OneOfNotValid() | kinds.OneOfMultipleValid():
                yield _Complaint(pointer, f"has to be {self._description(error)}", spread=True)
            case _:
                yield _Complaint(pointer, self._plain_words(error))

    def _plain_words(self, error: ValidationError) -> str:
        """Of what the parser points at in the same place."""
        kinds = ValidationErrorKind
        match error.kind:
            case kinds.FalseSchema():
                return "does not belong here; leave it out"
            case kinds.Type(types):
                return f"has to be {' or '.join(WANTED[InputType(name)] for name in types)}, not {kind(error.instance)}"
            case kinds.Enum(options):
                return f"has to be one of {', '.join(shown(str(option)) for option in options)}"
            case kinds.Minimum(least):
                return f"has to be at least {least:,}"
            case kinds.Maximum(most):
                return f"has to be at most {most:,}"
            case kinds.MinLength(least):
                return f"has to have at least {least:,} characters"
            case kinds.MaxLength(most):
                return f"has to have at most {most:,} characters"
            case kinds.MinItems(least):
                return f"has to have at least {least:,} elements"
            case kinds.MaxItems(most):
                return f"has to have at most {most:,} elements"
            case kinds.MaxProperties(most):
                return f"has to have at most {most:,} members"
            case _:
                return f"has to be {self._description(error)}"

    def _description(self, error: ValidationError, *below_it: str) -> str:
        """What is right, in the words of the part of the schema that says no."""
        part: Json = self._schema
        path = error.schema_path[: error.schema_path.index(below_it[0])] if below_it else error.schema_path[:-1]
        for key in (*path, *below_it):
            part = part[key]
        described = part.get("description") if isinstance(part, dict) else None
        where = "/".join(map(str, error.schema_path))
        return str(described or f"as #/{where} of GET /api/v1/orchestrator/schema wants it")


def _pointer_of(error: ValidationError) -> str:
    return below("", *error.instance_path)


def _with_those_above(pointer: str) -> Iterator[str]:
    while pointer:
        yield pointer
        pointer = pointer.rpartition("/")[0]
    yield pointer


def _is_small(raw: Json) -> bool:
    """Whether it holds few values, found without recursion."""
    todo, seen = [raw], 0
    while todo and seen <= _MOST_VALUES:
        value = todo.pop()
        seen += 1
        if isinstance(value, dict | list) and len(value) > _MOST_VALUES:
            return False
        todo.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
    return seen <= _MOST_VALUES


@cache
def definition_form() -> Form:
    """The schema of definitions, compiled once in a process."""
    return Form(definition_schema())
