"""What the fake runtime understands of Python: enough to try every way in which an execution can end.

Understood are ``print("text")`` (with ``file=sys.stderr``, ``end=…`` and ``"text" * 100``), ``time.sleep(seconds)``,
``raise Name("text")``, ``sys.exit(code)``, ``while True: pass``, ``pass`` and imports. ``bytearray(n)`` beyond the
memory of the environment ends it with ``out_of_memory``. Code of a step may say ``outputs["name"] = value`` with
``inputs["name"]`` and ``os.environ["NAME"]`` as values, and ``if os.environ["NAME"] == "text":``. What comes with
code is ``sys.argv[1]``, ``sys.stdin.read()`` and ``open("path").read()``. Anything else is refused as
``NotImplementedError``.
"""

import ast
import json
import posixpath
from dataclasses import dataclass, field

from sandgate.core.execution import ErrorReport, StepData, Surroundings
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
    data: StepData | None = None
    around: Surroundings = field(default_factory=Surroundings)
    outputs: dict[str, object] = field(default_factory=dict)

    def pack_outputs(self) -> bytes | None:
        """What the code of a step hands on; None for other code, and for code that did not come to its end."""
        if self.data is None or self.status is not ExecutionStatus.COMPLETED:
            return None
        return json.dumps(self.outputs).encode()


def interpret(code: str, limits: Limits, data: StepData | None = None, around: Surroundings | None = None) -> Outcome:
    """What the code would do within the limits."""
    outcome = Outcome(data=data, around=around or Surroundings())
    try:
        statements = ast.parse(code, "<code>").body
    except (SyntaxError, ValueError) as error:
        return _fail(outcome, type(error).__name__, str(error), 1)
    try:
        _run(statements, outcome, limits)
    except KeyError as missing:
        # A variable that is not there.
        return _fail(outcome, "KeyError", str(missing), 1)
    except ValueError as error:
        # What is no constant.
        return _fail(outcome, "NotImplementedError", str(error), 1)
    return outcome


def _run(statements: list[ast.stmt], outcome: Outcome, limits: Limits) -> bool:
    """Carry out statements up to the one that ends the program; False when there was one."""
    return all(_step(statement, outcome, limits) for statement in statements)


def _step(statement: ast.stmt, outcome: Outcome, limits: Limits) -> bool:
    """Carry out one statement; False when it ends the program."""
    match statement:
        case ast.Import() | ast.ImportFrom() | ast.Pass():
            return True
        case ast.While(test=ast.Constant(value=True)):
            outcome.sleep_s = None
            return False
        case ast.If(test=ast.Compare(left=left, ops=[ast.Eq()], comparators=[right])):
            equal = _value(left, outcome) == _value(right, outcome)
            return _run(statement.body if equal else statement.orelse, outcome, limits)
        case ast.Assign(targets=[ast.Subscript(value=ast.Name(id="outputs"), slice=key)], value=value):
            outcome.outputs[str(ast.literal_eval(key))] = _value(value, outcome)
            return True
        case ast.Expr(value=ast.Call() as call):
            return _call(call, outcome, limits)
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
    text = " ".join(str(_value(argument, outcome)) for argument in call.args) + end
    stream = outcome.stderr if "file" in named else outcome.stdout
    stream += text.encode("utf-8", "surrogateescape")


def _exit(outcome: Outcome, code: object) -> None:
    exit_code = code if isinstance(code, int) else 1
    if exit_code:
        _fail(outcome, "SystemExit", str(code), 1)
        outcome.exit_code = exit_code


def _value(node: ast.expr, outcome: Outcome) -> object:
    data, around = outcome.data or StepData({}, {}), outcome.around
    match node:
        case ast.Subscript(value=ast.Attribute(value=ast.Name(id="sys"), attr="argv"), slice=place):
            return around.args[_number(place) - 1]
        case ast.Call(func=func) if ast.unparse(func) == "sys.stdin.read":
            return around.stdin
        case ast.Call(func=ast.Attribute(value=ast.Call(func=ast.Name(id="open"), args=[path]))):
            return _read(str(ast.literal_eval(path)), around)
        case ast.Subscript(value=ast.Name(id="inputs"), slice=key):
            return data.inputs[ast.literal_eval(key)]
        case ast.Subscript(value=ast.Attribute(value=ast.Name(id="os"), attr="environ"), slice=key):
            return {**data.env, **around.env}[ast.literal_eval(key)]
        case ast.BinOp(left=ast.Constant(value=str() as text), op=ast.Mult(), right=right):
            return text * _number(right)
        case _:
            return ast.literal_eval(node)


def _read(path: str, around: Surroundings) -> str:
    """A file that came with the code, as seen from its folder."""
    whole = posixpath.normpath(posixpath.join(around.cwd or "", path))
    return next(file.content.decode() for file in around.files if posixpath.normpath(file.path) == whole)


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
