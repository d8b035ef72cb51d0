"""A notebook from its first cell to its end, as somebody writes it who is used to a hosted code interpreter."""

import copy
import io
import json
import struct
import sys
import tarfile
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.sandgate_server import Server
from sandgate.sdk.answers import Execution
from sandgate.sdk.client import Client
from sandgate.sdk.errors import ApiError
from sandgate.sdk.ports import PortAnswer
from tests.e2e.documents import NEEDS_PACKAGES, Shell, commands
from tests.e2e.package_index import HOST, package_index

pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_own_python]
TEMPLATE = f"python-{sys.version_info.major}.{sys.version_info.minor}"
GUIDE = Path(__file__).resolve().parents[2] / "docs/sessions.md"
PATIENCE_S = 60.0
# Unpacked, what is installed has 180 MB.
LIMITS = {"memory_mb": 1024, "disk_mb": 640, "cpu": 2.0}
SALES = "day,shop,sold\n2026-01-01,north,3\n2026-01-01,south,5\n2026-01-02,north,4\n2026-01-02,south,9\n"

INSTALL = """
import subprocess, sys
line = [sys.executable, "-m", "pip", "install", "--user", "--ignore-installed", "--no-compile", "--no-cache-dir"]
line += ["--progress-bar", "off", "--disable-pip-version-check", "--no-warn-script-location"]
line += ["--index-url", {index!r}, "--trusted-host", {host!r}, "pandas", "matplotlib"]
subprocess.run(line, check=True)
"""
FRAME = """
import pandas as pd
sales = pd.read_csv("in/sales.csv", parse_dates=["day"])
by_shop = sales.groupby("shop", as_index=False)["sold"].sum()
by_shop
"""
FIGURE = """
import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(4, 3))
axes.bar(by_shop["shop"], by_shop["sold"])
axes.set_title("Sold")
print("drawn")
"""
EXPORT = """
import os
os.makedirs("out", exist_ok=True)
by_shop.to_json("out/by_shop.json", orient="records")
sales.to_csv("out/sales.csv", index=False)
len(sales)
"""
SITE = """
import http.server
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = open("out/by_shop.json", "rb").read() if self.path == "/by_shop.json" else b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Page).serve_forever()
"""
IPYTHON = """
%pip install --quiet --no-compile --no-cache-dir --disable-pip-version-check --no-warn-script-location \\
    --index-url {index} --trusted-host {host} ipython
import IPython
from IPython.display import HTML, JSON, SVG, Image, Latex, Markdown, display
IPython.version_info > (1,)
"""
SHOWN = """
display(HTML("<b>"), Markdown("**b**"), SVG("<svg/>"), Latex("$x$"), JSON({"a": 1}))
Image(b"\\x89PNG\\r\\n\\x1a\\n")
"""
BY_SHOP = [{"shop": "north", "sold": 7}, {"shop": "south", "sold": 14}]


class Notebook:
    """An environment and a session in it."""

    def __init__(
        self, client: Client, template: str = TEMPLATE, *, isolation: str = "standard", allow: Sequence[str] = ()
    ) -> None:
        self.client = client
        made = client.create_environment(
            "notebook", template, timeout_s=600, limits=LIMITS, isolation=isolation, allow=allow
        )
        self.environment_id = made.environment_id
        self.session_id = client.create_session(self.environment_id).session_id

    def run(self, cell: str, timeout_s: float = 120.0) -> Execution:
        """Run a cell, which has to work."""
        ran = self.client.execute(self.environment_id, cell, session_id=self.session_id, timeout_s=timeout_s)
        assert (ran.status, ran.error) == ("completed", None), ran
        return ran

    def show_what_the_guide_shows(self, token: str, folder: Path) -> list[dict[str, Any]]:
        """What commands of docs/sessions.md that need packages are answered."""
        variables = {"ENVIRONMENT_ID": self.environment_id, "SESSION_ID": self.session_id, "TOKEN": token}
        shell = Shell(self.client.address, folder, variables)
        shown = [command for command in commands(GUIDE) if NEEDS_PACKAGES.search(command)]
        return [result for command in shown for result in shell.run(command)["results"]]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Has what notebooks want."""
    with package_index(tmp_path_factory.mktemp("index"), "pandas", "matplotlib", "ipython") as address:
        yield address


@pytest.fixture(scope="module")
def server(index: str) -> Iterator[Server]:
    """One whose administrator lets one address of loopback be reached."""
    settings = {
        "SANDGATE_NETWORK_ALLOW_SPECIAL": HOST, "SANDGATE_PACKAGE_INDEX": index, "SANDGATE_PACKAGE_HOSTS": "",
        "SANDGATE_SPARE_SANDBOXES": "1", "SANDGATE_GVISOR_SPARE_SANDBOXES": "0",
    }  # fmt: skip
    with Server(settings) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    """Of the admin's."""
    with Client(f"http://127.0.0.1:{server.port}", server.token) as made:
        yield made


@pytest.fixture(scope="module")
def notebook(client: Client, index: str) -> Iterator[Notebook]:
    """One that may reach the index."""
    host = httpx.URL(index)
    made = Notebook(client, allow=[f"{host.host}:{host.port}"])
    yield made
    client.delete_environment(made.environment_id)


def _picture_size(picture: bytes) -> tuple[int, int]:
    """Source: the specification of PNG, "Image header"."""
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack("!II", picture[16:24])
    return width, height


def _ask_patiently(client: Client, environment_id: str) -> PortAnswer:
    """What the server inside answers, once it listens."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with suppress(ApiError):
            return client.ask_port(environment_id, 8000, "by_shop.json")
    pytest.fail(f"nothing listens after {PATIENCE_S} s")


def _check_frame(frame: Mapping[str, Any]) -> None:
    assert frame["application/json"] == BY_SHOP
    assert "<td>north</td>" in frame["text/html"]
    assert "south" in frame["text/plain"]


def _check_figure(figure: Mapping[str, Any]) -> None:
    width, height = _picture_size(b64decode(figure["image/png"]))
    assert width > 200
    assert height > 150


@pytest.mark.needs_curl
def test_a_notebook(notebook: Notebook, server: Server, index: str, tmp_path: Path) -> None:
    """Packages, a file, a frame, a figure, results to take home, and a server that others may see."""
    client, environment_id = notebook.client, notebook.environment_id

    installed = notebook.run(INSTALL.format(index=index, host=HOST))
    assert "Successfully installed" in installed.stdout
    report = client.get_network(environment_id)
    assert {(each.host, each.verdict) for each in report.connections} == {(HOST, "allowed")}
    assert report.totals.received_bytes > 50_000_000

    client.write_file(environment_id, "in/sales.csv", SALES.encode())
    (frame,) = notebook.run(FRAME).results or []
    _check_frame(frame)

    drawn = notebook.run(FIGURE)
    (figure,) = drawn.results or []
    assert drawn.stdout == "drawn\n"
    _check_figure(figure)

    frame, figure = notebook.show_what_the_guide_shows(server.token, tmp_path)
    _check_frame(frame)
    _check_figure(figure)

    assert (notebook.run(EXPORT).results or [])[0]["text/plain"] == "4"
    assert client.read_file(environment_id, "out/sales.csv").decode() == SALES
    with client.open_archive(environment_id, "out") as pieces:
        packed = io.BytesIO(b"".join(pieces))
    with tarfile.open(fileobj=packed) as archive:
        names = {Path(member.name).name for member in archive if member.isfile()}
    assert names == {"by_shop.json", "sales.csv"}

    served = client.begin_execution(environment_id, SITE, timeout_s=300)
    answer = _ask_patiently(client, environment_id)
    assert (answer.status, answer.json()) == (200, BY_SHOP)
    link = client.create_port_link(environment_id, 8000, expires_in_s=60)
    others = httpx.get(f"{client.address}{link.link_path}by_shop.json", trust_env=False, timeout=PATIENCE_S)
    assert (others.status_code, others.json()) == (200, BY_SHOP)
    stranger = httpx.get(client.port_address(environment_id, 8000, "by_shop.json"), trust_env=False, timeout=PATIENCE_S)
    assert stranger.status_code == 401
    client.cancel_execution(environment_id, served.execution_id)


def test_the_real_display(notebook: Notebook, index: str) -> None:
    """IPython itself, installed by a line of the cell that imports it, shows by the session, each type as it is."""
    session_id = notebook.client.create_session(notebook.environment_id).session_id
    fresh = copy.copy(notebook)
    fresh.session_id = session_id
    (installed,) = fresh.run(IPYTHON.format(index=index, host=HOST)).results or []
    assert installed["text/plain"] == "True"
    kinds = ("text/html", "text/markdown", "image/svg+xml", "text/latex", "application/json", "image/png")
    shown = [{kind: each[kind] for kind in kinds if kind in each} for each in fresh.run(SHOWN).results or []]
    picture = {"image/png": b64encode(b"\x89PNG\r\n\x1a\n").decode()}
    texts = [{"text/html": "<b>"}, {"text/markdown": "**b**"}, {"image/svg+xml": "<svg/>"}, {"text/latex": "$x$"}]
    assert shown == [*texts, {"application/json": {"a": 1}}, picture]


@pytest.mark.needs_gvisor
@pytest.mark.needs_curl
def test_frames_and_figures_on_another_kernel(client: Client, server: Server, tmp_path: Path) -> None:
    """As above in the gvisor class, with packages of a template."""
    client.build_template({"name": "data", "base": TEMPLATE, "packages": ["pandas", "matplotlib"]})
    *_log, finished = client.follow_template("data")
    assert json.loads(finished.data)["status"] == "ready", client.get_template_log("data")
    notebook = Notebook(client, "data", isolation="gvisor")
    client.write_file(notebook.environment_id, "in/sales.csv", SALES.encode())
    (frame,) = notebook.run(FRAME).results or []
    (figure,) = notebook.run(FIGURE).results or []
    for frames, figures in ((frame, figure), notebook.show_what_the_guide_shows(server.token, tmp_path)):
        _check_frame(frames)
        _check_figure(figures)
    assert client.get_environment(notebook.environment_id).isolation == "gvisor"
    client.delete_environment(notebook.environment_id)
