"""P7: work with numpy and pandas in an environment whose template has them imported, against a bare interpreter.

The template is the recipe of examples/templates; it is built here, with packages from the index that
SANDGATE_PACKAGE_INDEX names (and SANDGATE_NETWORK_ALLOW_SPECIAL, where that is on this machine). Both run the very same
packages: the bare interpreter those of the layer that was built.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.client import Connection, UnexpectedAnswer
from bench.context import Bench, refer
from bench.figures import Figure, Samples, Target, figure_of
from bench.references import run_once
from bench.sandgate_server import Server, create, delete, execute
from bench.timing import repeat

RECIPE = Path(__file__).resolve().parent.parent / "examples" / "templates" / "python-3.11-data.yaml"
TEMPLATES = "/api/v1/sandbox/templates"
CODE = "import numpy, pandas; print(pandas.DataFrame({'a': numpy.arange(1000.0)}).describe())"
ROUNDS = 10
BUILD_S = 900.0
KEPT = ("SANDGATE_PACKAGE_INDEX", "SANDGATE_PACKAGE_HOSTS", "SANDGATE_NETWORK_ALLOW_SPECIAL")


def read_recipe() -> dict[str, Any]:
    """The recipe as it is sent."""
    from sandgate.cli.workflows.documents import read_document

    recipe: dict[str, Any] = read_document(str(RECIPE)).value
    return recipe


def build(connection: Connection, recipe: dict[str, Any]) -> dict[str, Any]:
    """Build it to its end. Raises ``UnexpectedAnswer`` when that fails."""
    connection.expect(201, "POST", TEMPLATES, recipe)
    deadline = time.monotonic() + BUILD_S
    while (built := connection.expect(200, "GET", f"{TEMPLATES}/{recipe['name']}"))["status"] == "building":
        if time.monotonic() > deadline:
            raise UnexpectedAnswer("The template was not built in time")
        time.sleep(0.2)
    if built["status"] != "ready":
        raise UnexpectedAnswer(f"The template was not built: {built['status_reason']}")
    found: dict[str, Any] = built
    return found


def measure(bench: Bench) -> list[Figure]:
    """Alternates between the two, so that a noisy minute of the machine hits both."""
    each = bench.count(20, 4)
    ours: list[float] = []
    theirs: list[float] = []
    new: list[float] = []
    settings = {name: os.environ[name] for name in KEPT if name in os.environ}
    with Server(settings) as server, server.connect() as connection:
        built = build(connection, read_recipe())
        print(f"  {built['files']} files, {built['size_bytes'] / 1e6:.0f} MB", file=sys.stderr)
        environment = create(connection, built["name"])
        body = {"code": CODE}
        repeat(5, lambda: execute(connection, environment, body))
        layer = server.state / "templates" / "layers" / built["template_id"]
        argv = _bare(layer)

        def alternate() -> float:
            for _ in range(ROUNDS if not bench.quick else 2):
                ours.extend(repeat(each, lambda: execute(connection, environment, body)))
                theirs.extend(run_once(argv) for _ in range(max(2, each // 5)))
            return Samples.of(theirs).median

        reference = refer("python3.11 -c, bare, the same packages", alternate)
        new.extend(_begin(connection, built["name"]) for _ in range(bench.count(30, 4)))
    return [
        figure_of("P7", "numpy and pandas, preloaded: describe(), p50", "ms", Samples.of(ours),
                  Target(ratio_at_most=0.1), reference),
        figure_of("P7 new", "the same with the making of the environment, p50", "ms", Samples.of(new), Target(),
                  reference),
    ]  # fmt: skip


def _begin(connection: Connection, template: str) -> float:
    started = time.perf_counter()
    environment = create(connection, template)
    execute(connection, environment, {"code": CODE})
    taken_ms = (time.perf_counter() - started) * 1000
    delete(connection, environment)
    time.sleep(0.2)  # waits: a spare is made meanwhile, as between two users
    return taken_ms


def _bare(layer: Path) -> list[str]:
    """The interpreter that the layer was made with, on the host, with the layer's packages."""
    interpreter = os.readlink(layer / "bin" / "python3.11") if (layer / "bin" / "python3.11").is_symlink() else ""
    if not interpreter.startswith("/"):
        interpreter = os.readlink(layer / "bin" / "python")
    packages = layer / "lib" / "python3.11" / "site-packages"
    code = f"import sys; sys.path.append({str(packages)!r}); {CODE}"
    done = subprocess.run([interpreter, "-c", code], capture_output=True, check=False)
    if done.returncode:
        raise UnexpectedAnswer(f"The bare interpreter failed: {done.stderr.decode()[-300:]}")
    return [interpreter, "-c", code]
