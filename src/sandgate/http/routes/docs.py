"""The document of the API, and a page to read and try it, which needs no network beyond this server."""

import asyncio
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import orjson

from sandgate.http.answer import Answer, Header
from sandgate.http.api import Api

_TAG = "documentation"

# The files of Swagger UI come from a package that carries them for FastAPI.
_ASSETS = {
    "swagger-ui-bundle.js": b"text/javascript; charset=utf-8",
    "swagger-ui.css": b"text/css; charset=utf-8",
}
_CACHED: Header = (b"cache-control", b"public, max-age=86400")
# The page runs scripts and styles of this server only and talks to this server only.
_POLICY: Header = (
    b"content-security-policy",
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>sandgate API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = b"""SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
});
"""


@cache
def _read_asset(name: str) -> bytes:
    # Found without being imported: it would bring all of FastAPI along.
    package = find_spec("fastapi_offline")
    if package is None or package.origin is None:
        raise FileNotFoundError("the package fastapi_offline is not there")
    return (Path(package.origin).parent / "static" / name).read_bytes()


def add_docs_routes(api: Api) -> None:
    """Declare the operations. They are not part of the document themselves."""

    # Made once, though anybody may ask for it as often as they like, and go away; and in a thread, because it takes a
    # second, in which others have to be served.
    document: list[asyncio.Future[bytes]] = []

    def write_document() -> bytes:
        return orjson.dumps(api.openapi())

    @api.operation("GET", "/openapi.json", tag=_TAG, hidden=True)
    async def get_document() -> Answer:
        """Answer the OpenAPI document."""
        if not document:
            document.append(asyncio.get_running_loop().run_in_executor(None, write_document))
        try:
            return Answer(200, await asyncio.shield(document[0]))
        except Exception:
            # What went wrong once is tried again by whoever asks next.
            document.clear()
            raise

    @api.operation("GET", "/docs", tag=_TAG, hidden=True)
    async def get_page() -> Answer:
        """Answer the page."""
        return Answer(200, _PAGE, b"text/html; charset=utf-8", (_POLICY,))

    @api.operation("GET", "/docs/start.js", tag=_TAG, hidden=True)
    async def get_start() -> Answer:
        """Answer the script that starts the page."""
        return Answer(200, _START, b"text/javascript; charset=utf-8", (_CACHED,))

    for name, content_type in _ASSETS.items():
        _add_asset(api, name, content_type)


def _add_asset(api: Api, name: str, content_type: bytes) -> None:
    @api.operation("GET", f"/docs/{name}", tag=_TAG, hidden=True)
    async def get_asset() -> Answer:
        """Answer a file of the page."""
        return Answer(200, _read_asset(name), content_type, (_CACHED,))
