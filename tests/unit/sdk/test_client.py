"""The client against a server that is played: what it sends, what it makes of answers, when it asks again."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import pytest

from sandgate import sdk
from sandgate.sdk.client import Client
from sandgate.sdk.errors import ApiError, InvalidAddress, ServerUnreachable, UnexpectedAnswer
from sandgate.sdk.transport import RetryPolicy

ADDRESS = "https://sandgate.example/under"
TIME = "2026-01-01T00:00:00Z"
ME = {"user_id": "user-1", "username": "ann", "role": "user", "credential": "api_key", "new": 1}
RUN = {
    "run_id": "run-1", "workflow_id": "workflow-1", "workflow_name": "w", "workflow_version": 1, "status": "running",
    "creation_time": TIME, "started_at": TIME, "finished_at": None, "inputs": {}, "error": None, "owner_id": "user-1",
}  # fmt: skip
WORKFLOW = {
    "workflow_id": "workflow-1", "name": "w", "version": 1, "creation_time": TIME, "updated_at": TIME,
    "definition": {"name": "w"}, "steps": [], "status": "active", "owner_id": "user-1",
}  # fmt: skip
Answers = Sequence[httpx.Response | type[httpx.TransportError]]


def refusal(status: int, code: str = "CODE", **headers: str) -> httpx.Response:
    """An error as the API writes it."""
    body = {"error": {"code": code, "message": "it is so", "details": {"why": 1}}}
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): text for name, text in headers.items()})


class Played:
    """A server that gives these answers, one after another, and remembers what it was asked."""

    def __init__(self, answers: Answers) -> None:
        self.asked: list[httpx.Request] = []
        self.slept: list[float] = []
        self._answers = list(answers)

    def client(self, **more: Any) -> Client:
        """A client of it."""
        connections = httpx.MockTransport(self._answer)
        more.setdefault("credential", "sgk_secret")
        return Client(ADDRESS, connections=connections, sleep=self.slept.append, **more)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, httpx.Response):
            return answer
        raise answer("it broke", request=request)


def test_a_request_carries_the_credential_and_nothing_leaks_it() -> None:
    """Below the path of the address; a repr shows the address only."""
    played = Played([httpx.Response(200, json=ME)])
    with played.client() as client:
        me = client.get_me()
        assert "secret" not in repr(client)
    (asked,) = played.asked
    assert (asked.method, str(asked.url)) == ("GET", f"{ADDRESS}/api/v1/me")
    assert asked.headers["authorization"] == "Bearer sgk_secret"
    assert (me.username, me.role) == ("ann", "user")


def test_variables_name_a_server_and_who_asks() -> None:
    """What is missing is said."""
    with Client.from_variables({"SANDGATE_URL": ADDRESS, "SANDGATE_TOKEN": "t"}) as client:
        assert client.address == ADDRESS
    with pytest.raises(InvalidAddress, match="SANDGATE_URL is not set"):
        Client.from_variables({"SANDGATE_TOKEN": "t"})
    with pytest.raises(InvalidAddress, match="SANDGATE_API_KEY or SANDGATE_TOKEN"):
        Client.from_variables({"SANDGATE_URL": ADDRESS, "SANDGATE_API_KEY": ""})


def test_what_programs_need_is_in_one_place() -> None:
    """And nothing else is."""
    assert sdk.Client is Client
    assert all(hasattr(sdk, name) for name in sdk.__all__)
    assert not hasattr(sdk, "Transport")


def test_a_refusal_is_one_error_with_all_that_was_said() -> None:
    """Status, code, message, details, and the id to find it by in the server's log."""
    played = Played([refusal(409, "RUN_ENDED", x_request_id="r-1")])
    with played.client() as client, pytest.raises(ApiError) as caught:
        client.cancel_run("run-1")
    error = caught.value
    assert (error.status, error.code, error.message, error.details) == (409, "RUN_ENDED", "it is so", {"why": 1})
    assert (error.request_id, error.retry_after_s) == ("r-1", None)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"username": "ann"}),
        httpx.Response(404, text="<html>not here"),
        httpx.Response(500, json={"error": "a text"}),
        httpx.Response(400, json={"error": {"code": "X"}}),
        httpx.Response(302, headers={"location": "https://evil.example/"}),
        httpx.Response(200, text="[" * 100_000),
    ],
)
def test_what_is_no_answer_of_this_api_is_said_to_be_none(answer: httpx.Response) -> None:
    """Of a proxy, another service, another version; a redirection is not followed."""
    played = Played([answer])
    with played.client() as client, pytest.raises(UnexpectedAnswer):
        client.get_me()
    assert len(played.asked) == 1


Call = Callable[[Client], Any]
SAFE: list[Call] = [
    lambda client: client.get_run("run-1"),
    lambda client: client.delete_workflow("workflow-1"),
    lambda client: client.start_workflow("workflow-1"),
    lambda client: client.create_workflow({}),
]
UNSAFE: list[Call] = [
    lambda client: client.replace_workflow("workflow-1", {}),
    lambda client: client.approve_step("run-1", "ask"),
    lambda client: client.cancel_run("run-1"),
    lambda client: client.retry_run("run-1"),
    lambda client: client.create_api_key("label"),
    lambda client: client.issue_token("ann", "password"),
]


@pytest.mark.parametrize("call", SAFE)
def test_what_may_be_sent_twice_is_sent_again_when_the_server_is_away(call: Call) -> None:
    """After the time that it names, with the same key; as often as the policy says."""
    played = Played([refusal(503, retry_after="3"), refusal(503), refusal(503, retry_after="900"), refusal(503)])
    with played.client(retries=RetryPolicy(attempts=4, total_s=100)) as client, pytest.raises(ApiError) as caught:
        call(client)
    assert (caught.value.status, len(played.asked)) == (503, 4)
    assert played.slept == [3.0, 0.4, 10.0]
    assert len({asked.headers.get("idempotency-key") for asked in played.asked}) == 1


@pytest.mark.parametrize("call", UNSAFE)
def test_what_may_not_be_sent_twice_is_not(call: Call) -> None:
    """Neither after a 503 nor after a connection that broke."""
    for answer in (refusal(503, retry_after="1"), httpx.ReadError):
        played = Played([answer])
        with played.client() as client, pytest.raises((ApiError, ServerUnreachable)):
            call(client)
        assert (len(played.asked), played.slept) == (1, [])


def test_other_refusals_are_final() -> None:
    """Asking again would be answered the same."""
    for status in (400, 401, 403, 404, 409, 429, 500):
        played = Played([refusal(status, retry_after="1")])
        with played.client() as client, pytest.raises(ApiError):
            client.get_run("run-1")
        assert len(played.asked) == 1


def test_a_connection_that_breaks_is_made_again() -> None:
    """The start of a run is sent again with its key, so that there is one run."""
    played = Played([httpx.RemoteProtocolError, httpx.ReadError, httpx.Response(200, json=RUN)])
    with played.client() as client:
        assert client.start_workflow("workflow-1", {"a": 1}, wait_s=2.5).run_id == "run-1"
    assert len({asked.headers["idempotency-key"] for asked in played.asked}) == 1
    assert str(played.asked[0].url).endswith("/workflows/workflow-1/start?wait=2.5")
    assert json.loads(played.asked[0].content) == {"inputs": {"a": 1}}


@pytest.mark.parametrize(
    ("kind", "sent", "timed_out"),
    [(httpx.ConnectError, False, False), (httpx.ConnectTimeout, False, True), (httpx.ReadTimeout, True, True)],
)
def test_nobody_there_is_said_at_once(kind: type[httpx.TransportError], sent: bool, timed_out: bool) -> None:
    """Whether the request may have arrived, and whether time was what lacked."""
    played = Played([kind])
    with played.client() as client, pytest.raises(ServerUnreachable) as caught:
        client.get_me()
    assert (caught.value.sent, caught.value.timed_out, played.slept) == (sent, timed_out, [])
    assert ADDRESS in caught.value.message


def test_a_proxy_that_answers_for_a_server_that_is_away_counts_as_away() -> None:
    """Its 502 has another form, and asking again may help all the same."""
    played = Played([httpx.Response(502, text="<h1>Bad Gateway"), httpx.Response(200, json=ME)])
    with played.client() as client:
        assert client.get_me().username == "ann"


def test_lists_are_read_to_their_end_and_no_further_than_asked() -> None:
    """Page by page, each by the cursor of the one before."""
    pages = [{"workflows": [WORKFLOW] * 2, "next_cursor": "c 1"}, {"workflows": [WORKFLOW], "next_cursor": None}]
    played = Played([httpx.Response(200, json=page) for page in pages])
    with played.client() as client:
        listed: Iterator[Any] = client.list_workflows(name="w")
        assert next(listed).name == "w"
        assert len(played.asked) == 1
        assert len(list(listed)) == 2
    assert [dict(asked.url.params) for asked in played.asked] == [
        {"name": "w", "limit": "200"},
        {"name": "w", "limit": "200", "cursor": "c 1"},
    ]


@pytest.mark.parametrize("name", ["../../auth/token", "..", ".", "a/b", "a?b=c", "a#b", "a b", "é", "%2e%2e"])
def test_names_stay_one_part_of_a_path(name: str) -> None:
    """Whatever is in them."""
    played = Played([httpx.Response(200, json={})])
    with played.client() as client:
        client.delete_workflow(name)
    path = played.asked[0].url.raw_path.decode()
    assert path.startswith("/under/api/v1/orchestrator/workflows/")
    assert path.count("/") == 6
    assert "?" not in path
    assert path.rpartition("/")[2].strip(".")


def test_events_are_read_from_where_they_were_left() -> None:
    """With the id of the last one; a stream that is something else is refused."""
    stream = httpx.Response(200, content=b"id: 5\ndata: {}\n\n", headers={"content-type": "text/event-stream"})
    played = Played([stream, httpx.Response(200, json={}), refusal(404)])
    with played.client() as client:
        (event,) = client.stream_run_events("run-1", "4")
        assert (event.event_id, event.data) == ("5", "{}")
        with pytest.raises(UnexpectedAnswer, match="not as a stream"):
            next(client.stream_run_events("run-1"))
        with pytest.raises(ApiError):
            next(client.stream_run_events("run-1"))
    assert [asked.headers.get("last-event-id") for asked in played.asked] == ["4", None, None]


@pytest.mark.parametrize(
    "address",
    ["", "sandgate.example", "localhost:8080", "ftp://host", "http://", "http://user:pw@host", "http://host?x=1",
     "http://host#x", "http://host:port", "http://host:99999", "file:///etc/passwd"],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidAddress):
        Client(address)


@pytest.mark.parametrize("credential", ["", "a b", "a\r\nX-Evil: 1", "é", "a\0"])
def test_what_is_no_credential_is_refused_unseen(credential: str) -> None:
    """It could add a header, and is not shown."""
    with pytest.raises(InvalidAddress) as caught:
        Client("http://host", credential)
    assert not credential or credential not in caught.value.message
