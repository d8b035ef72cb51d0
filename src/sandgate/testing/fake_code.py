"""What the fake runtime understands of Python: enough to try every way in which an execution can end.

Understood are ``print("text")`` (with ``file=sys.stderr``, ``end=…`` and ``"text" * 100``), ``time.sleep(seconds)``,
``raise Name("text")``, ``sys.exit(code)``, ``while True: pass``, ``pass`` and imports. ``bytearray(n)`` beyond the
memory of the environment ends it with ``out_of_memory``. Steps of workflows may also write ``outputs["name"] = value``,
where the value is written out or is ``inputs["name"]``. Anything else is refused as ``NotImplementedError``.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandgate.core.execution import ErrorReport
from sandgate.core.limits import Limits
from sandgate.core.states import ExecutionStatus


@dataclass(slots=True)
class Outcome:
    """What the code does: sleeps for ``sleep_s`` in total (None: for ever), prints, and ends."""

    status: ExecutionStatus = ExecutionStatus.COMPLETED
    exit_code: int | None = 0
    error: ErrorReport | None = None
    sleep_s: float | None = 0.0
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)


def interpret(code: str, limits: Limits, inputs: Mapping[str, Any] | None = None) -> Outcome:
    """What the code would do within the limits."""
    outcome = Outcome(inputs=inputs or {})
    try:
        statements = ast.parse(code, "<code>").body
    except (SyntaxError, ValueError) as error:
        return _fail(outcome, type(error).__name__, str(error), 1)
    for statement in statements:
        if not _step(statement, outcome, limits):
            break
    return outcome


def _step(statement: ast.stmt, outcome: Outcome, limits: Limits) -> bool:
    """Carry out one statement; False when it ends the program."""
    match statement:
        case ast.Import() | ast.ImportFrom() | ast.Pass():
            return True
        case ast.While(test=ast.Constant(value=True)):
            outcome.sleep_s = None
            return False
        case ast.Expr(value=ast.Call() as call):
            return _call(call, outcome, limits)
        case ast.Assign(targets=[ast.Subscript(value=ast.Name(id="outputs"), slice=ast.Constant(value=str(name)))]):
            outcome.outputs[name] = _input_or_value(statement.value, outcome)
            return True
        case ast.Raise(exc=ast.Call(func=ast.Name(id=name), args=arguments)):
            text = str(ast.literal_eval(arguments[0])) if arguments else ""
            _fail(outcome, name, text, statement.lineno)
            return False
        case _:
            _fail(outcome, "NotImplementedError", ast.unparse(statement), statement.lineno)
            return False


def _call(call: ast.Call, outcome: Outcome, limits: Limits) -> bool:
    match ast.unparse(call.func):
        case "print":
            _print(call, outcome)
        case "time.sleep" if outcome.sleep_s is not None:
            outcome.sleep_s += float(ast.literal_eval(call.args[0]))
        case "sys.exit":
            _exit(outcome, ast.literal_eval(call.args[0]) if call.args else 0)
            return False
        case "bytearray" if _number(call.args[0]) > limits.memory_bytes:
            outcome.status, outcome.exit_code = ExecutionStatus.OUT_OF_MEMORY, 137
            return False
        case "bytearray":
            pass
        case other:
            _fail(outcome, "NotImplementedError", other, call.lineno)
            return False
    return True


def _print(call: ast.Call, outcome: Outcome) -> None:
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    end = str(ast.literal_eval(named["end"])) if "end" in named else "\n"
    text = " ".join(str(_value(argument)) for argument in call.args) + end
    stream = outcome.stderr if "file" in named else outcome.stdout
    stream += text.encode("utf-8", "surrogateescape")


def _exit(outcome: Outcome, code: object) -> None:
    exit_code = code if isinstance(code, int) else 1
    if exit_code:
        _fail(outcome, "SystemExit", str(code), 1)
        outcome.exit_code = exit_code


def _value(node: ast.expr) -> object:
    match node:
        case ast.BinOp(left=ast.Constant(value=str() as text), op=ast.Mult(), right=right):
            return text * _number(right)
        case _:
            return ast.literal_eval(node)


def _input_or_value(node: ast.expr, outcome: Outcome) -> object:
    match node:
        case ast.Subscript(value=ast.Name(id="inputs"), slice=ast.Constant(value=name)):
            return outcome.inputs[str(name)]
        case _:
            return _value(node)


def _number(node: ast.expr) -> int:
    match node:
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _number(left) * _number(right)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return int(_number(left) ** _number(right))
        case _:
            return int(ast.literal_eval(node))


def _fail(outcome: Outcome, name: str, text: str, line: int) -> Outcome:
    traceback = f'Traceback (most recent call last):\n  File "<code>", line {line}, in <module>\n{name}: {text}\n'
    outcome.status, outcome.exit_code = ExecutionStatus.FAILED, 1
    outcome.error = ErrorReport(name, text, traceback)
    outcome.stderr += traceback.encode("utf-8", "replace")
    return outcome
