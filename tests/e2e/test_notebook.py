"""A notebook from its first cell to its end, as somebody writes it who is used to a hosted code interpreter."""

import copy
import io
import struct
import sys
import tarfile
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from bench.sandgate_server import Server
from sandgate.sdk.answers import Execution
from sandgate.sdk.client import Client
from sandgate.sdk.errors import ApiError
from sandgate.sdk.ports import PortAnswer
from tests.e2e.package_index import HOST, package_index

pytestmark = [pytest.mark.needs_root_namespaces, pytest.mark.needs_own_python]
TEMPLATE = f"python-{sys.version_info.major}.{sys.version_info.minor}"
PATIENCE_S = 30.0
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

    def __init__(self, client: Client, index: str) -> None:
        self.client = client
        self.index = index
        host = httpx.URL(index)
        made = client.create_environment(
            "notebook", TEMPLATE, timeout_s=600, limits=LIMITS, allow=[f"{host.host}:{host.port}"]
        )
        self.environment_id = made.environment_id
        self.session_id = client.create_session(self.environment_id).session_id

    def run(self, cell: str, timeout_s: float = 120.0) -> Execution:
        """Run a cell, which has to work."""
        ran = self.client.execute(self.environment_id, cell, session_id=self.session_id, timeout_s=timeout_s)
        assert (ran.status, ran.error) == ("completed", None), ran
        return ran


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """On a server whose administrator lets one address of loopback be reached."""
    settings = {"SANDGATE_NETWORK_ALLOW_SPECIAL": HOST}
    with (
        package_index(tmp_path_factory.mktemp("index"), "pandas", "matplotlib", "ipython") as index,
        Server(settings) as server,
        Client(f"http://127.0.0.1:{server.port}", server.token) as client,
    ):
        made = Notebook(client, index)
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


def test_a_notebook(notebook: Notebook) -> None:
    """Packages, a file, a frame, a figure, results to take home, and a server that others may see."""
    client, environment_id = notebook.client, notebook.environment_id

    installed = notebook.run(INSTALL.format(index=notebook.index, host=HOST))
    assert "Successfully installed" in installed.stdout
    report = client.get_network(environment_id)
    assert {(each.host, each.verdict) for each in report.connections} == {(HOST, "allowed")}
    assert report.totals.received_bytes > 50_000_000

    client.write_file(environment_id, "in/sales.csv", SALES.encode())
    (frame,) = notebook.run(FRAME).results or []
    assert frame["application/json"] == BY_SHOP
    assert "<td>north</td>" in frame["text/html"]
    assert "south" in frame["text/plain"]

    drawn = notebook.run(FIGURE)
    (figure,) = drawn.results or []
    assert drawn.stdout == "drawn\n"
    width, height = _picture_size(b64decode(figure["image/png"]))
    assert width > 200
    assert height > 150

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
    others = httpx.get(f"{client.address}{link.link_path}by_shop.json", trust_env=False)
    assert (others.status_code, others.json()) == (200, BY_SHOP)
    stranger = httpx.get(client.port_address(environment_id, 8000, "by_shop.json"), trust_env=False)
    assert stranger.status_code == 401
    client.cancel_execution(environment_id, served.execution_id)


def test_the_real_display(notebook: Notebook) -> None:
    """IPython itself, installed by a line of the cell that imports it, shows by the session, each type as it is."""
    session_id = notebook.client.create_session(notebook.environment_id).session_id
    fresh = copy.copy(notebook)
    fresh.session_id = session_id
    (installed,) = fresh.run(IPYTHON.format(index=notebook.index, host=HOST)).results or []
    assert installed["text/plain"] == "True"
    kinds = ("text/html", "text/markdown", "image/svg+xml", "text/latex", "application/json", "image/png")
    shown = [{kind: each[kind] for kind in kinds if kind in each} for each in fresh.run(SHOWN).results or []]
    picture = {"image/png": b64encode(b"\x89PNG\r\n\x1a\n").decode()}
    texts = [{"text/html": "<b>"}, {"text/markdown": "**b**"}, {"image/svg+xml": "<svg/>"}, {"text/latex": "$x$"}]
    assert shown == [*texts, {"application/json": {"a": 1}}, picture]
