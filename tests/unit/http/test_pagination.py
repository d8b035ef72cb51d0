"""Cursors and limits of lists."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandgate.core.errors import InvalidRequest
from sandgate.core.ids import make_environment_id
from sandgate.core.page import Page
from sandgate.http.bodies import validate
from sandgate.http.pagination import PageQuery, next_cursor
from tests.unit.http.site import ENVIRONMENTS, Site


@given(st.integers(1, 200))
def test_a_cursor_leads_on_from_where_it_was_given(limit: int) -> None:
    """What an answer gives is what the store gets back."""
    environment_id = make_environment_id()
    cursor = next_cursor(Page((), environment_id))
    request = validate(PageQuery, {"limit": str(limit), "cursor": cursor}).page_request("env")
    assert (request.limit, request.before_id) == (limit, environment_id)


def test_the_last_page_has_no_cursor() -> None:
    """null says that there is no more."""
    assert next_cursor(Page((), None)) is None


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@given(st.text(max_size=60) | st.sampled_from([_encode("1:exec-000000000000"), _encode("2:env-000000000000"), "", "="]))
def test_cursors_of_other_lists_and_made_up_ones_are_refused(text: str) -> None:
    """A cursor is not a way into the store."""
    query = PageQuery.model_construct(limit=50, cursor=text)
    with pytest.raises(InvalidRequest):
        query.page_request("env")


@pytest.mark.parametrize("limit", ["0", "201", "-1", "1.0", "1e1", " 5", "\uff15", "", "x", "9" * 30])
async def test_limits_are_plain_numbers_in_range(site: Site, limit: str) -> None:
    """Everything else is answered 400."""
    answer = await site.get(ENVIRONMENTS, params={"limit": limit})
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["fields"][0]["field"] == "limit"


async def test_pages_follow_each_other_while_rows_are_added(site: Site) -> None:
    """Each environment is on one page, newest first, and what is new is on none of the later ones."""
    made = [await site.create_environment() for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "2"} if cursor is None else {"limit": "2", "cursor": cursor}
        page = (await site.get(ENVIRONMENTS, params=params)).json()
        seen += [item["environment_id"] for item in page["environments"]]
        await site.create_environment()
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]
