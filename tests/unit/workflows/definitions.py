"""Definitions for the tests of this folder: the smallest one, right ones and wrong ones."""

from typing import Any

Raw = dict[str, Any]


def step(name: str, **more: Any) -> Raw:
    """A step that runs code."""
    return {"name": name, "type": "code_execution", "config": {"code": "pass"}, **more}


def workflow(*steps: Raw, **more: Any) -> Raw:
    """A definition of these steps."""
    return {"name": "test-workflow", "steps": list(steps) or [step("one")], **more}


def _typed(kind: str, config: Raw | None = None, **more: Any) -> Raw:
    given = {} if config is None else {"config": config}
    return workflow({"name": "one", "type": kind, **given, **more})


VALID: list[Raw] = [
    workflow(),
    workflow(step("a"), step("b-2", needs=[]), step("c", needs=["a", "b-2"])),
    workflow(step("c", needs=["a"]), step("a", needs=[])),
    workflow(step("a", foreach=[1, "${{ inputs.x }}"], strategy={"max_parallel": 2}), inputs={"x": {}}),
    workflow(step("a"), step("b", foreach="${{ steps.a.outputs.rows }}", env={"N": "${{ index }}"})),
    workflow(step("a", **{"if": False}), step("b", **{"if": "failure() || cancelled()"})),
    workflow(step("a", retry={}), defaults={"retry": {"on": []}, "timeout": 0.1, "template": "python-3.11"}),
    workflow(inputs={"x": {"type": "integer", "default": 3.0, "description": "d"}, "y": {"required": True}}),
    workflow(env={"KEY": "${{ secrets.KEY }}"}, concurrency={"group": "g-${{ inputs.x }}"}, inputs={"x": {}}),
    workflow(workspace="run", timeout=31_622_400, description=""),
    workflow(on_error=[step("e", config={"code": "", "inputs": {"s": "${{ steps.one.error }}"}})]),
    workflow(**{"finally": [step("f", config={"code": "", "inputs": {"s": "${{ steps.one.status }}"}})]}),
    _typed("http", {"url": "https://example.com/${{ run.id }}", "headers": {"A": "${{ secrets.T }}"}, "body": [1]}),
    _typed("http", {"url": "${{ inputs.url }}", "method": "POST"}) | {"inputs": {"url": {}}},
    _typed("http", {"url": "http://x/a@b", "expect": [200, 404], "headers": {"X-Host": "a"}}),
    _typed("workflow", {"workflow_id": "self"}),
    workflow(step("a"), outputs={"a": {"b": ["${{ steps.a.outputs.x }}"]}, "c": "${{ run.id }}", "d-e": None}),
    _typed("sleep", {"seconds": 0}),
    _typed("sleep", {"seconds": "${{ 1 + 1 }}"}),
    _typed("sleep", {"until": "2026-01-31T08:00:00Z"}),
    _typed("approval"),
    _typed("approval", {"message": "go?", "approvers": ["alice"]}, timeout=31_622_400),
    _typed("workflow", {"workflow_id": "workflow-123", "inputs": {"x": 1}}, retry={"max_attempts": 2}),
    workflow(step("a", config={"code": "", "environment_id": "env-${{ run.id }}"})),
    workflow(step("a", config={"code": "true", "language": "bash"})),
]

_IF = "if"

# Each with the pointers of its problems, in order. These are of the form, so that the schema refuses them too.
WRONG_FORM: list[tuple[Any, list[str]]] = [
    ([], ["", "", ""]),
    ({}, ["", ""]),
    (workflow() | {"steps": []}, ["/steps"]),
    (workflow() | {"steps": {}}, ["/steps"]),
    (workflow() | {"steps": [1]}, ["/steps/0"]),
    (workflow() | {"name": " x"}, ["/name"]),
    (workflow() | {"name": 3}, ["/name"]),
    (workflow(stepz=[]), ["/stepz"]),
    (workflow() | {"a/b~c": 1}, ["/a~1b~0c"]),
    (workflow(timeout=True), ["/timeout"]),
    (workflow(timeout=0), ["/timeout"]),
    (workflow(workspace="shared"), ["/workspace"]),
    (workflow(inputs={"x": {"type": "text"}}), ["/inputs/x/type"]),
    (workflow(inputs={"x": {"type": "number", "default": "3"}}), ["/inputs/x/default"]),
    (workflow(inputs={"x": {"default": 3}}), ["/inputs/x/default"]),
    (workflow(inputs={"x": {"required": True, "default": ""}}), ["/inputs/x/default"]),
    (workflow(inputs={"1x": {}}), ["/inputs/1x"]),
    (workflow(env={"A": None, "sandgate_x": "1", "B C": "2"}), ["/env/A", "/env/sandgate_x", "/env/B C"]),
    (workflow(concurrency={"limit": 0}), ["/concurrency", "/concurrency/limit"]),
    (workflow(defaults={"retry": {"on": ["cancelled"]}, "code": ""}), ["/defaults/code", "/defaults/retry/on/0"]),
    (workflow({"type": "sleep", "config": {"seconds": 1}}), ["/steps/0"]),
    (workflow({"name": "1a", "type": "code", "config": {}}), ["/steps/0/name", "/steps/0/type"]),
    (workflow({"name": "a", "type": "code_execution"}), ["/steps/0"]),
    (workflow(step("a", nedes=[])), ["/steps/0/nedes"]),
    (workflow(step("a", needs="b")), ["/steps/0/needs"]),
    (workflow(step("a", needs=[1])), ["/steps/0/needs/0"]),
    (workflow(step("a", strategy={"max_parallel": 2})), ["/steps/0/strategy"]),
    (workflow(step("a", foreach=3)), ["/steps/0/foreach"]),
    (workflow(step("a", **{_IF: 3})), ["/steps/0/if"]),
    (workflow(step("a", timeout=86_401)), ["/steps/0/timeout"]),
    (
        workflow(step("a", retry={"max_attempts": 1.5, "backoff": 0})),
        ["/steps/0/retry/max_attempts", "/steps/0/retry/backoff"],
    ),
    (workflow(step("a", config={"code": 3, "timeout": 1})), ["/steps/0/config/timeout", "/steps/0/config/code"]),
    (
        workflow(step("a", config={"code": "", "template": "x", "environment_id": "env-1"})),
        ["/steps/0/config/template"],
    ),
    (_typed("http", {"url": "ftp://x", "method": "get"}), ["/steps/0/config/method", "/steps/0/config/url"]),
    (
        _typed("http", {"url": "http://x", "headers": {"a b": "c", "d": "e\nf"}}),
        ["/steps/0/config/headers/a b", "/steps/0/config/headers/d"],
    ),
    (_typed("http", {"url": "http://x"}, env={}), ["/steps/0/env"]),
    (_typed("http", {"url": "https://user:word@x/"}), ["/steps/0/config/url"]),
    (
        _typed("http", {"url": "http://x", "headers": {"Host": "y", "transfer-Encoding": "z"}}),
        ["/steps/0/config/headers/Host", "/steps/0/config/headers/transfer-Encoding"],
    ),
    (
        _typed("http", {"url": "http://x", "expect": [99, "200", True, 200]}),
        ["/steps/0/config/expect/0", "/steps/0/config/expect/1", "/steps/0/config/expect/2"],
    ),
    (workflow(outputs=["x"]), ["/outputs"]),
    (workflow(outputs={"1x": 1}), ["/outputs/1x"]),
    (_typed("sleep", {}), ["/steps/0/config"]),
    (_typed("sleep", {"seconds": "5"}), ["/steps/0/config/seconds"]),
    (_typed("sleep", {"seconds": 1}, retry={}), ["/steps/0/retry"]),
    (workflow(step("a", config={"code": "", "language": "c++"})), ["/steps/0/config/language"]),
    (_typed("approval", {"approvers": []}), ["/steps/0/config/approvers"]),
    (_typed("workflow", {"workflow_id": "${{ inputs.w }}"}), ["/steps/0/config/workflow_id"]),
]

# What only the parser can see.
WRONG_SENSE: list[tuple[Any, list[str]]] = [
    (workflow(step("a"), step("a")), ["/steps/1/name"]),
    (workflow(step("a"), **{"finally": [step("a")]}), ["/finally/0/name"]),
    (workflow(step("a", needs=["b"])), ["/steps/0/needs/0"]),
    (workflow(step("a", needs=["a"])), ["/steps/0/needs"]),
    (workflow(step("a", needs=["b"]), step("b")), ["/steps/0/needs"]),
    (workflow(step("a"), on_error=[step("e", needs=["a"])]), ["/on_error/0/needs/0"]),
    (workflow(step("a", **{_IF: "1 +"})), ["/steps/0/if"]),
    (workflow(step("a", **{_IF: "inputs.x"})), ["/steps/0/if"]),
    (workflow(step("a", **{_IF: "steps.a.outputs.x"})), ["/steps/0/if"]),
    (workflow(step("a"), step("b", needs=[], **{_IF: "steps.a.outputs.x"})), ["/steps/1/if"]),
    (workflow(step("a"), step("b", **{_IF: "steps.a.output.x"})), ["/steps/1/if"]),
    (workflow(step("a"), step("b", **{_IF: "steps[item]"})), ["/steps/1/if", "/steps/1/if"]),
    (workflow(step("a", foreach="${{ item }}")), ["/steps/0/foreach"]),
    (workflow(step("a", foreach="rows")), ["/steps/0/foreach"]),
    (workflow(step("a", **{_IF: "secrets.X == ''"})), ["/steps/0/if"]),
    (workflow(step("a", **{_IF: "env.X == ''"}), env={"X": "${{ secrets.X }}"}), ["/steps/0/if"]),
    (workflow(step("a", **{_IF: "run.number == 1"})), ["/steps/0/if"]),
    (workflow(step("a", config={"code": "", "inputs": {"x": ["${{ failure() }}"]}})), ["/steps/0/config/inputs/x/0"]),
    (workflow(step("a", **{_IF: "inputs.x.y"}), inputs={"x": {}}), ["/steps/0/if"]),
    (workflow(env={"A": "${{ steps.one.status }}"}), ["/env/A"]),
    (
        _typed("workflow", {"workflow_id": "workflow-1", "inputs": {"k": "${{ secrets.K }}"}}),
        ["/steps/0/config/inputs/k"],
    ),
    (
        workflow(step("a"), outputs={"x": ["${{ item }}"], "y": "${{ steps.b.outputs }}"}),
        ["/outputs/x/0", "/outputs/y"],
    ),
    (workflow(step("a"), outputs={"x": "${{ secrets.K }}"}), ["/outputs/x"]),
    (_typed("sleep", {"until": "tomorrow"}), ["/steps/0/config/until"]),
    (
        workflow(
            step("a", config={"code": "", "template": "x"}), step("b"), workspace="run", defaults={"template": "y"}
        ),
        ["/steps/1"],
    ),
]
