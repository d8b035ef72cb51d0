"""Ten times more than may be had is refused in time, and what comes afterwards is served at once."""

import asyncio
import time
from contextlib import AsyncExitStack

import httpx

from bench.sandgate_server import ENVIRONMENTS, Server

AT_ONCE = 4
PASSWORD = "a password that is long"
# Far beyond what a refusal takes, on a busy machine too.
PATIENCE_S = 30.0


async def _ask(client: httpx.AsyncClient, path: str, code: str) -> tuple[int, float, str]:
    """Status, seconds until it was there, and the code of the error."""
    begun = time.monotonic()
    answer = await client.post(path, json={"code": code, "timeout": 60})
    error = answer.json().get("error") or {}
    if answer.status_code == 429:
        assert int(answer.headers["retry-after"]) >= 1
    return answer.status_code, time.monotonic() - begun, error.get("code", "") if answer.status_code != 200 else ""


async def test_ten_times_the_load_is_refused_in_time_and_forgotten(server: Server) -> None:
    """A user who asks for ten times the quota gets it, and 429 for the rest; neighbours and what follows are served."""
    address = f"http://127.0.0.1:{server.port}"
    limits = httpx.Limits(max_connections=20 * AT_ONCE)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
        client.headers["Authorization"] = f"Bearer {server.token}"
        user = {"username": "crowd", "password": PASSWORD}
        user_id = (await client.post("/api/v1/users", json=user)).json()["user_id"]
        await client.put(f"/api/v1/users/{user_id}/quota", json={"executions_at_once": AT_ONCE})
        token = (await client.post("/api/v1/auth/token", json=user)).json()["access_token"]
        mine = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits, headers=mine) as crowd:
            made = (await crowd.post(ENVIRONMENTS, json={"name": "crowd", "template": "python"})).json()
            path = f"{ENVIRONMENTS}/{made['environment_id']}/execute"
            assert (await _ask(crowd, path, "pass"))[0] == 200
            asked = [
                asyncio.ensure_future(_ask(crowd, path, "import time; time.sleep(1)")) for _ in range(10 * AT_ONCE)
            ]
            begun = time.monotonic()
            assert (await client.get("/api/v1/me")).status_code == 200
            assert time.monotonic() - begun < PATIENCE_S
            answers = await asyncio.gather(*asked)
            assert {status for status, _, _ in answers} == {200, 429}
            assert {code for status, _, code in answers if status == 429} == {"EXECUTION_QUOTA_EXCEEDED"}
            assert sum(status == 200 for status, _, _ in answers) >= AT_ONCE
            assert max(seconds for status, seconds, _ in answers if status == 429) < PATIENCE_S
            status, seconds, _ = await _ask(crowd, path, "pass")
            assert (status, seconds < PATIENCE_S) == (200, True)
            await crowd.delete(f"{ENVIRONMENTS}/{made['environment_id']}")
        assert (await client.delete(f"/api/v1/users/{user_id}")).status_code == 200


async def _log_in(client: httpx.AsyncClient, name: str) -> httpx.AsyncClient:
    """A new user's own client."""
    user = {"username": name, "password": PASSWORD}
    assert (await client.post("/api/v1/users", json=user)).status_code == 201
    token = (await client.post("/api/v1/auth/token", json=user)).json()["access_token"]
    limits = httpx.Limits(max_connections=20 * AT_ONCE)
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(base_url=client.base_url, timeout=60, limits=limits, headers=headers)


async def test_many_users_share_what_the_server_executes_at_once() -> None:
    """Beyond it every one of them is refused in time, however few of the executions are theirs; and served at once
    when there is room.
    """
    settings = {"SANDGATE_MAX_EXECUTIONS_AT_ONCE": str(AT_ONCE)}
    async with AsyncExitStack() as stack:
        server = stack.enter_context(Server(settings))
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=60)
        )
        client.headers["Authorization"] = f"Bearer {server.token}"
        users, paths = [], []
        for name in ("ann", "ben", "cleo"):
            users.append(await stack.enter_async_context(await _log_in(client, name)))
            made = (await users[-1].post(ENVIRONMENTS, json={"name": name, "template": "python"})).json()
            paths.append(f"{ENVIRONMENTS}/{made['environment_id']}/execute")
            assert (await _ask(users[-1], paths[-1], "pass"))[0] == 200
        sleep = "import time; time.sleep(1)"
        asked = [
            asyncio.ensure_future(_ask(user, path, sleep))
            for user, path in list(zip(users, paths, strict=True)) * (4 * AT_ONCE)
        ]
        answers = await asyncio.gather(*asked)
        assert {status for status, _, _ in answers} == {200, 429}
        assert {code for status, _, code in answers if status == 429} == {"TOO_MANY_EXECUTIONS"}
        assert sum(status == 200 for status, _, _ in answers) >= AT_ONCE
        assert max(seconds for status, seconds, _ in answers if status == 429) < PATIENCE_S
        for user, path in zip(users, paths, strict=True):
            status, seconds, _ = await _ask(user, path, "pass")
            assert (status, seconds < PATIENCE_S) == (200, True)
