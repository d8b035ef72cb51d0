"""The verbs of the network: a sandbox's listener, which outlives gateways, and connections to its ports."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from sandgate.sandbox.launcher import protocol
from sandgate.sandbox.launcher.life import Life, OnRefusal

OnDone = Callable[[Mapping[str, Any], list[int]], None]


def serve(request: protocol.Network, sandbox: Life, answer: OnDone, refuse: Callable[[str], None]) -> None:
    """Do what is asked of a sandbox that is ready; it is answered at once or later."""

    def fail(error: OSError) -> None:
        refuse(explain(error))

    try:
        _serve(request, sandbox, answer, fail)
    except OSError as error:
        fail(error)


def _serve(request: protocol.Network, sandbox: Life, answer: OnDone, refuse: OnRefusal) -> None:
    match request:
        case protocol.Listen():
            sandbox.listen(lambda listener, port: answer({"port": port}, [listener.fileno()]), refuse)
        case protocol.Unlisten():
            sandbox.unlisten()
            answer({}, [])
        case protocol.Dial():
            with sandbox.dial(request.port, is_new=request.family == 6) as connection:
                answer({"is_carried": sandbox.is_carried}, [connection.fileno()])


def explain(error: OSError) -> str:
    """What the gateway is told; the number for what it can tell apart."""
    return f"{error.errno}: {error.strerror or os.strerror(error.errno or 0)}"
