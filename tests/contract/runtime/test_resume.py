"""What every runtime promises of code with a tag, which goes on while its gateway is gone."""

import pytest

from sandgate.core.execution import ExecutionRequest, StepData
from sandgate.core.limits import Limits
from sandgate.core.output_tap import OutputTap
from sandgate.core.states import ExecutionStatus
from sandgate.sandbox.base import RunningExecution, Sandbox
from tests.contract.runtime.conftest import Subject
from tests.runtime.hosts import until

TAG = "run-1|step|-|1"
BEGUN = "print('begun', flush=True)\n"
# Longer than a change of gateways takes, if need be on a machine that is busy.
SLOW_S = (1.5, 6.0, 30.0)
LOOP = f"{BEGUN}while True: pass"


def _slow(seconds: float = SLOW_S[0]) -> str:
    return f"{BEGUN}import time\ntime.sleep({seconds})\nprint('after')\noutputs['n'] = inputs['n']"


def _request(code: str = LOOP, timeout_s: float = 60.0, tag: str = TAG) -> ExecutionRequest:
    return ExecutionRequest(code, timeout_s, StepData({"n": 7}, {}), is_last=True, tap=OutputTap(), tag=tag)


async def _next_gateway(subject: Subject) -> None:
    """It expects nothing; what has a tag is no sandbox of its yet."""
    await subject.runtime.stop(keep_sandboxes=True)
    await subject.connect()
    assert await subject.runtime.adopt({}) == []


async def _begin(subject: Subject, request: ExecutionRequest) -> tuple[Sandbox, RunningExecution]:
    """Until its code runs."""
    sandbox = await subject.create()
    running, tap = sandbox.execute(request), request.tap
    assert tap is not None
    await until(lambda: tap.kept("stdout"))
    return sandbox, running


async def test_it_is_taken_up_once_and_ends(subject: Subject) -> None:
    """By whoever knows the tag; the gateway that began it hears that it is lost to it."""
    for seconds in SLOW_S:
        sandbox, before = await _begin(subject, _request(_slow(seconds)))
        await _next_gateway(subject)
        if (await before.wait()).status is ExecutionStatus.LOST:
            break
        await subject.runtime.discard()
    assert set(subject.runtime.kept()) == {TAG}
    resumed = await subject.runtime.resume(_request(), Limits())
    assert resumed is not None
    assert resumed.sandbox.environment_id == sandbox.environment_id
    assert not subject.runtime.kept()
    assert await subject.runtime.resume(_request(), Limits()) is None
    ended = await resumed.execution.wait()
    assert (ended.status, ended.stdout, ended.outputs) == (ExecutionStatus.COMPLETED, b"begun\nafter\n", b'{"n": 7}')
    await subject.runtime.destroy(sandbox.environment_id)
    assert subject.ended == []


async def test_an_end_that_was_told_is_told_again(subject: Subject) -> None:
    """The gateway may have gone before it could write it down."""
    _sandbox, before = await _begin(subject, _request(f"{BEGUN}import sys\nsys.exit(3)"))
    assert (await before.wait()).exit_code == 3
    await _next_gateway(subject)
    resumed = await subject.runtime.resume(_request(), Limits())
    assert resumed is not None
    ended = await resumed.execution.wait()
    assert (ended.status, ended.exit_code) == (ExecutionStatus.FAILED, 3)


@pytest.mark.parametrize("timeout_s", [4.0, 60.0])
async def test_its_end_is_the_next_gateway_s_to_bring_about(subject: Subject, timeout_s: float) -> None:
    """By its time limit, which counts on, or by a cancellation."""
    await _begin(subject, _request(LOOP, timeout_s))
    await _next_gateway(subject)
    resumed = await subject.runtime.resume(_request(LOOP, timeout_s), Limits())
    assert resumed is not None
    if timeout_s > 4.0:
        resumed.execution.cancel()
    status = (await resumed.execution.wait()).status
    assert status is (ExecutionStatus.CANCELLED if timeout_s > 4.0 else ExecutionStatus.TIMED_OUT)


async def test_an_unknown_tag(subject: Subject) -> None:
    """It is no error, and harms nothing that has another tag."""
    await _begin(subject, _request(LOOP))
    await _next_gateway(subject)
    assert await subject.runtime.resume(_request(tag="another"), Limits()) is None
    assert set(subject.runtime.kept()) == {TAG}


async def test_what_nobody_takes_up_is_ended(subject: Subject) -> None:
    """By ``discard``; what was taken up stays, and so does what was adopted."""
    await _begin(subject, _request(LOOP))
    left, _running = await _begin(subject, _request(LOOP, tag="another"))
    plain = await subject.create()
    await subject.runtime.stop(keep_sandboxes=True)
    await subject.connect()
    adopted = await subject.runtime.adopt({plain.environment_id: Limits()})
    assert [sandbox.environment_id for sandbox in adopted] == [plain.environment_id]
    resumed = await subject.runtime.resume(_request(LOOP), Limits())
    assert resumed is not None
    await subject.runtime.discard()
    assert not subject.runtime.kept()
    assert await subject.runtime.resume(_request(tag="another"), Limits()) is None
    # Its id is free again.
    again = await subject.runtime.create(subject.spec_of(left.environment_id))
    assert (await subject.run(again, "print('on')")).stdout == b"on\n"
    assert (await subject.run(adopted[0], "print('on')")).stdout == b"on\n"
    assert resumed.sandbox.failure is None
    assert subject.ended == []


async def test_several_of_one_sandbox(subject: Subject) -> None:
    """It was expected: each is taken up or ended by itself, and the sandbox stays."""
    sandbox = await subject.create()
    tags = ["one", "two", "three"]
    requests = [_request(_slow() if tag == "one" else LOOP, tag=tag) for tag in tags]
    for request in requests:
        sandbox.execute(request)
    plain = sandbox.execute(ExecutionRequest(LOOP, 60.0))
    await until(lambda: all(request.tap is not None and request.tap.kept("stdout") for request in requests))
    await subject.runtime.stop(keep_sandboxes=True)
    assert (await plain.wait()).status is ExecutionStatus.LOST
    await subject.connect()
    (adopted,) = await subject.runtime.adopt({sandbox.environment_id: Limits()})
    assert set(subject.runtime.kept()) == set(tags)
    one = await subject.runtime.resume(_request(tag="one"), Limits())
    two = await subject.runtime.resume(_request(LOOP, tag="two"), Limits())
    assert one is not None
    assert two is not None
    await subject.runtime.discard()
    two.execution.cancel()
    assert (await two.execution.wait()).status is ExecutionStatus.CANCELLED
    assert (await one.execution.wait()).stdout == b"begun\nafter\n"
    subject.runtime.let_go("two")
    assert (await subject.run(adopted, "print('on')")).stdout == b"on\n"
    await subject.runtime.stop(keep_sandboxes=True)
    await subject.connect()
    await subject.runtime.adopt({sandbox.environment_id: Limits()})
    assert set(subject.runtime.kept()) == {"one"}
