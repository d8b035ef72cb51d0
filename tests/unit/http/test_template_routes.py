"""Templates that are built, over HTTP."""

import asyncio
from typing import Any

import pytest

from sandgate.core.built import BuiltTemplate, LayerSize, Root
from sandgate.core.errors import StoreUnavailable
from sandgate.core.ids import TemplateId, make_template_id
from sandgate.core.principal import Principal
from sandgate.core.recipe import Recipe
from sandgate.core.states import TemplateStatus
from sandgate.environments.builds.log import LogEvents
from tests.unit.http.site import ENVIRONMENTS, Site

TEMPLATES = "/api/v1/sandbox/templates"
RECIPE = {"name": "data", "base": "python-3.9"}


async def test_templates_are_listed_for_whoever_may_use_them(site: Site) -> None:
    """One's own with the newest version, those of everybody, and for an admin all."""
    for _version in range(2):
        await site.add_template("user", name="mine")
    await site.add_template("stranger", name="theirs")
    await site.add_template("admin", name="shared", is_public=True)
    for who, names in (("user", ["mine", "shared"]), ("viewer", ["shared"]), ("admin", ["mine", "shared", "theirs"])):
        listed = (await site.get(TEMPLATES, who)).json()["templates"]
        assert [(row["name"], row["status"]) for row in listed if row["version"]] == [(n, "ready") for n in names]
    versions = (await site.get(f"{TEMPLATES}?name=mine")).json()["templates"]
    assert [(row["version"], row["lock"]) for row in versions] == [(2, None), (1, None)]
    assert (await site.get(f"{TEMPLATES}/mine@1")).json()["lock"] == "six==1"
    assert [row["name"] for row in (await site.get(f"{TEMPLATES}?name=python-3.9")).json()["templates"]] == [
        "python-3.9"
    ]


async def test_environments_are_of_one_version(site: Site) -> None:
    """Of the newest that is ready, unless one is named; they say which."""
    for _version in range(2):
        await site.add_template("user", name="mine")
    for wanted, got in (("mine", "mine@2"), ("mine@1", "mine@1")):
        environment_id = await site.create_environment(template=wanted)
        assert (await site.get(f"{ENVIRONMENTS}/{environment_id}")).json()["template"] == got
    for wanted in ("mine@3", "mine@", "mine@x", "theirs"):
        answer = await site.post(ENVIRONMENTS, {"name": "e", "template": wanted})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "UNKNOWN_TEMPLATE")
        assert "mine" in answer.json()["error"]["details"]["known"]
    refused = await site.send("DELETE", f"{TEMPLATES}/mine")
    assert (refused.status_code, refused.json()["error"]["details"]["environments"]) == (409, 2)


async def test_what_is_everybodys_is_an_admins_to_change(site: Site) -> None:
    """Others make environments of it, and cannot take its name."""
    row = await site.add_template("admin", name="shared", is_public=True)
    await site.create_environment(template="shared")
    for method, path in (("DELETE", row.name), ("GET", f"{row.name}/log"), ("GET", f"{row.name}/events")):
        assert (await site.send(method, f"{TEMPLATES}/{path}")).status_code == 403
    taken = await site.post(TEMPLATES, {**RECIPE, "name": "shared"})
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "TEMPLATE_NAME_TAKEN")
    await site.add_template("user", name="mine")
    assert (await site.post(TEMPLATES, {**RECIPE, "name": "mine", "public": True}, "admin")).status_code == 409
    assert (await site.post(TEMPLATES, {**RECIPE, "public": True})).json()["error"]["code"] == "FORBIDDEN"
    for name in ("python", "python-3.9", "tpl-x"):
        assert (await site.post(TEMPLATES, {**RECIPE, "name": name})).status_code == 409


async def test_what_is_built_already_is_the_answer(site: Site) -> None:
    """The same recipe, on the same base and index; anything else begins a build."""
    base = site.templates.all_templates.own.get("python-3.9")
    recipe = Recipe("python-3.9", env={"A": "b"})
    digest = recipe.digest(f"{base.language_version} {base.interpreter}", site.settings.package_index)
    made = await site.add_template("user", name="data", recipe=recipe, digest=digest)
    same = await site.post(TEMPLATES, {**RECIPE, "env": {"A": "b"}})
    assert (same.status_code, same.json()["template_id"], same.json()["status"]) == (201, made.template_id, "ready")
    other = await site.post(TEMPLATES, {**RECIPE, "env": {"A": "c"}})
    assert (other.json()["version"], other.json()["status"]) == (2, "building")
    await site.get(f"{TEMPLATES}/data/events")
    site.templates.service.holdings.take(made.owner_id)
    at_once = await site.post(TEMPLATES, {**RECIPE, "env": {"A": "d"}})
    site.templates.service.holdings.give_back(made.owner_id)
    assert (at_once.status_code, at_once.json()["error"]["details"]["scope"]) == (429, "user")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"base": "python-2"}, 400, "UNKNOWN_TEMPLATE"),
        ({"base": "python-3.8"}, 400, "TEMPLATE_UNAVAILABLE"),
        ({"limits": {"memory_mb": 1 << 20}}, 400, "LIMIT_TOO_HIGH"),
        ({"network": {"allow": [f"a{number}.example" for number in range(65)]}}, 400, "TOO_MANY_NETWORK_RULES"),
        ({"env": {f"A{number}": "x" * 1000 for number in range(9)}}, 413, "RECIPE_TOO_LARGE"),
        ({"preload": [f"{'m' * 60}.a{number}.{'n' * 64}.{'o' * 60}" for number in range(64)]}, 413, "RECIPE_TOO_LARGE"),
    ],
)
async def test_recipes_that_are_refused(site: Site, fields: dict[str, Any], status: int, code: str) -> None:
    """Before anything is built or kept."""
    answer = await site.post(TEMPLATES, {**RECIPE, **fields})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert await site.store.templates.list("server") == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Data"), ("name", "a/b"), ("name", "data@1"), ("name", "x" * 64), ("packages", ["-r/etc/passwd"]),
        ("packages", ["--index-url=http://x"]), ("packages", ["a\nb"]), ("packages", ["six"] * 201),
        ("packages", "six"),
        ("files", [{"path": "../f", "content": ""}]), ("files", [{"path": "/etc/passwd", "content": ""}]),
        ("files", [{"path": "a/../../f", "content": ""}]), ("files", [{"path": "a//f", "content": ""}]),
        ("files", [{"path": "f"}]), ("files", [{"path": "f", "content": "", "content_base64": ""}]),
        ("preload", ["os; print()"]), ("preload", ["a-b"]), ("preload", ["os"] * 65), ("setup", [""]),
        ("setup", ["a\0b"]), ("env", {"A=B": "x"}), ("env", {"A": "\0"}), ("index", "file:///etc"),
        ("index", "http://user:secret@index.example/"), ("index", "https://"), ("ready", ""), ("apt", ["vim"]),
        ("apt", "vim"), ("apt", ["vim"] * 201), ("apt", ["-o=x"]), ("apt", ["vim-"]), ("apt", ["v"]), ("apt", ["a b"]),
        ("apt", ["./a.deb"]), ("apt", ["vim=;"]), ("apt", ["vim\n"]), ("apt", ["Vim"]), ("apt", ["vim/sid"]),
        ("languages", {"python": "x"}), ("languages", {"x": "'"}), ("languages", {"x": " "}),
        ("base", {"tar": "A" * 64}),
        ("base", {"tar": "0" * 64, "image": "registry.example/a:1"}), ("base", {}),
        ("base", {"image": "image:1"}), ("base", {"image": "registry.example/a"}),
        ("network", {"allow": ["*"]}), ("limits", {"memory_mb": 1}), ("public", "yes"),
    ],
)  # fmt: skip
async def test_bodies_that_are_no_recipe(site: Site, field: str, value: Any) -> None:
    """They are refused with the field's name; what is not reached yet is refused, not left out."""
    answer = await site.post(TEMPLATES, {**RECIPE, field: value})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_FAILED")
    assert answer.json()["error"]["details"]["fields"][0]["field"].startswith((field, "body"))


async def test_debian_packages_are_for_roots_that_have_apt(site: Site) -> None:
    """The server's own templates have none; the refusal says what to do."""
    packages = ["git", "libc6:amd64", "g++=4:12.2.0-3", "imagemagick=8:6.9~rc1+dfsg-1"]
    refused = (await site.post(TEMPLATES, {**RECIPE, "apt": packages})).json()["error"]
    assert "root file system of its own" in refused["details"]["fields"][0]["problem"]
    body = {**RECIPE, "base": {"tar": "0" * 64}, "apt": packages}
    begun = await site.post(TEMPLATES, body)
    assert (begun.status_code, begun.json()["apt"], begun.json()["awaits_upload"]) == (201, packages, True)
    assert (await site.get(f"{TEMPLATES}/data")).json()["apt_lock"] == []
    await site.send("DELETE", f"{TEMPLATES}/data")


async def test_a_build_that_fails_tells_how_far_it_came(site: Site) -> None:
    """The log and its events end with the reason; a position goes on behind what was read."""
    await site.post(TEMPLATES, {**RECIPE, "setup": ["true"]})
    followed = (await site.get(f"{TEMPLATES}/data/events")).text
    assert "event: finished" in followed
    row = (await site.get(f"{TEMPLATES}/data")).json()
    log = (await site.get(f"{TEMPLATES}/data/log")).json()
    assert (row["status"], log["status"]) == ("failed", "failed")
    assert row["status_reason"].startswith("the base failed")
    assert log["log"].startswith("== base python-3.9")
    assert f"== failed: {row['status_reason']}" in log["log"]
    whole = len(log["log"].encode())
    rest = (await site.get(f"{TEMPLATES}/data/events", headers={"Last-Event-ID": str(whole)})).text
    assert "event: log" not in rest
    assert f"id: {whole}\nevent: finished" in rest
    for position in ("x", "-1", "1.0"):
        assert (await site.get(f"{TEMPLATES}/data/events", headers={"Last-Event-ID": position})).status_code == 400
    assert (await site.get(f"{TEMPLATES}/data/events?after=x")).status_code == 400
    made = await site.post(ENVIRONMENTS, {"name": "e", "template": "data"})
    assert made.json()["error"]["code"] == "TEMPLATE_UNAVAILABLE"
    again = await site.post(TEMPLATES, {**RECIPE, "setup": ["true"]})
    assert again.json()["version"] == 2


async def test_one_whose_files_are_gone_has_failed(site: Site) -> None:
    """A server that starts says so; one whose build another process began has failed, too."""
    gone = await site.add_template("user", name="gone")
    site.templates.layers.kept.clear()
    await site.templates.service.start()
    row = (await site.get(f"{TEMPLATES}/gone")).json()
    assert (row["status"], row["status_reason"], row["available"]) == ("failed", "its files are gone", False)
    assert (await site.send("DELETE", f"{TEMPLATES}/{gone.template_id}")).json()["versions"] == [1]


async def test_the_servers_own_are_not_deleted(site: Site) -> None:
    """There is nothing of the kind."""
    for path in ("python-3.9", "python-3.9/log", "ruby"):
        method = "GET" if path.endswith("log") else "DELETE"
        answer = await site.send(method, f"{TEMPLATES}/{path}", "admin")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "TEMPLATE_NOT_FOUND")


async def test_of_two_who_take_a_name_at_once_one_has_it(site: Site) -> None:
    """When it is to be everybody's it cannot be one user's, too, whoever's row is written first."""
    mine = site.post(TEMPLATES, {**RECIPE, "name": "both"})
    public = site.post(TEMPLATES, {**RECIPE, "name": "both", "public": True}, "admin")
    answers = await asyncio.gather(mine, public)
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    assert len(await site.store.templates.list("server")) == 1
    winner = "user" if answers[0].status_code == 201 else "admin"
    assert (await site.send("DELETE", f"{TEMPLATES}/both", winner)).status_code == 200
    assert (await site.post(TEMPLATES, {**RECIPE, "name": "both"})).status_code == 201


async def test_templates_of_a_user_who_is_gone_are_nobodys(site: Site) -> None:
    """Nobody begins with them; the files go when the last environment of them has ended."""
    site.templates.layers.kept.clear()
    gone = await site.add_template("stranger", name="shared", is_public=True)
    kept = await site.add_template("user", name="mine")
    environment_id = await site.create_environment(template="shared")
    assert await site.templates.service.leaving.look() == 0
    await site.store.users.delete(gone.owner_id)
    assert await site.templates.service.leaving.look() == 0
    refused = await site.post(ENVIRONMENTS, {"name": "e", "template": "shared"})
    assert refused.json()["error"]["code"] == "UNKNOWN_TEMPLATE"
    assert (await site.get(f"{TEMPLATES}/{gone.template_id}")).status_code == 404
    assert gone.template_id in site.templates.layers.kept
    await site.send("DELETE", f"{ENVIRONMENTS}/{environment_id}")
    assert await site.templates.service.leaving.look() == 1
    assert set(site.templates.layers.kept) == {kept.template_id}
    await site.create_environment(template="mine")
    assert await site.templates.service.leaving.look() == 0


async def test_nobody_has_all_live_templates(site: Site) -> None:
    """Beyond a user's part a template is refused of which the user has no environment yet."""
    for number in range(5):
        await site.add_template("user", name=f"t{number}")
    made = [await site.create_environment(template=f"t{number}") for number in (0, 0, 1, 2, 3)]
    wanted = {"name": "e", "template": "t4"}
    refused = await site.post(ENVIRONMENTS, wanted)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "TOO_MANY_LIVE_TEMPLATES")
    assert refused.json()["error"]["details"] == {"limit": 4, "used": 4}
    await site.create_environment(template="python-3.9")
    await site.send("DELETE", f"{ENVIRONMENTS}/{made[0]}")
    assert (await site.post(ENVIRONMENTS, wanted)).status_code == 429
    await site.send("DELETE", f"{ENVIRONMENTS}/{made[1]}")
    assert (await site.post(ENVIRONMENTS, wanted)).status_code == 201


async def test_one_that_is_deleted_while_it_is_followed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The events end with a word about it."""
    row = await site.add_template("user", name="mine")
    follow, loop = site.templates.service.follow, asyncio.get_running_loop()

    def follow_and_delete(caller: Principal, name: str, position: int) -> LogEvents:
        loop.call_soon(site.templates.all_templates.remove, row.template_id)
        return follow(caller, name, position)

    monkeypatch.setattr(site.templates.service, "follow", follow_and_delete)
    answer = await site.get(f"{TEMPLATES}/mine/events")
    assert 'event: finished\ndata: {"name":"mine","version":1,"status":"deleted"' in answer.text


async def test_files_of_a_server_that_had_another_name_stay(site: Site) -> None:
    """A folder that was moved, or a machine that was renamed, costs no template; what nobody knows goes."""
    row = await site.add_template("user", name="mine", server_id="before")
    assert (await site.get(f"{TEMPLATES}/mine")).status_code == 404
    site.templates.layers.kept["tpl-nobodys"] = site.templates.layers.kept[row.template_id]
    await site.templates.service.start()
    assert set(site.templates.layers.kept) == {row.template_id}


async def test_a_build_that_is_ended_while_its_end_is_written(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row does not say for ever that it is being built."""
    writing, may_write, finish = asyncio.Event(), asyncio.Event(), site.store.templates.finish

    async def finish_late(*arguments: Any, **named: Any) -> bool:
        writing.set()
        await may_write.wait()
        return await finish(*arguments, **named)

    monkeypatch.setattr(site.store.templates, "finish", finish_late)
    made = (await site.post(TEMPLATES, RECIPE)).json()
    await writing.wait()
    assert site.templates.service.holdings.end_all_of(made["owner_id"], "the account of its owner is disabled") == 1
    await asyncio.sleep(0)
    may_write.set()
    await site.templates.service.stop()
    assert (await site.get(f"{TEMPLATES}/data")).json()["status"] == "failed"
    assert site.templates.service.holdings.owners() == set()


async def test_one_whose_deletion_failed_is_as_before(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for the newest, and can be deleted later."""
    for _version in range(2):
        await site.add_template("user", name="mine")

    async def refuse(_template_id: TemplateId) -> bool:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(site.store.templates, "delete", refuse)
        assert (await site.send("DELETE", f"{TEMPLATES}/mine@1")).status_code == 503
    listed = (await site.get(TEMPLATES)).json()["templates"]
    assert [row["version"] for row in listed if row["name"] == "mine"] == [2]
    assert (await site.send("DELETE", f"{TEMPLATES}/mine@1")).json()["versions"] == [1]


async def test_what_is_built_on_other_servers_counts(site: Site) -> None:
    """A user has so many builds at once, wherever they are; nothing of one that is refused is left."""
    owner_id, now = site.accounts["user"].principal.user_id, site.clock.now()
    most = site.settings.max_template_builds_per_user
    await site.store.servers.join("there", now, 60)
    for number in range(most):
        row = BuiltTemplate(
            make_template_id(), owner_id, f"there-{number}", 0, TemplateStatus.BUILDING, "digest", "/usr/bin/python3",
            False, "there", now, Recipe("python-3.9"),
        )  # fmt: skip
        assert isinstance(await site.store.templates.insert(row, 100), BuiltTemplate)
    for _time in range(2):
        refused = await site.post(TEMPLATES, RECIPE)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "TOO_MANY_BUILDS")
        assert refused.json()["error"]["details"] == {"limit": most, "scope": "user"}
    await site.store.servers.leave("there")
    assert (await site.post(TEMPLATES, RECIPE)).status_code == 201


ROOT = Root("root-shared", "tar sha256:0", "/usr/bin/python3", {"PATH": "/usr/bin"}, LayerSize(7, 7000))


async def test_a_root_stays_with_a_version_whose_deletion_failed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of all of them, of which some went: it goes with the last one."""
    for _version in range(2):
        await site.add_template("user", name="mine", root=ROOT)
    layers, delete = site.templates.layers.kept, site.store.templates.delete
    asked: list[TemplateId] = []

    async def refuse_the_second(template_id: TemplateId) -> bool:
        asked.append(template_id)
        if len(asked) == 2:
            raise StoreUnavailable("away")
        return await delete(template_id)

    with monkeypatch.context() as patch:
        patch.setattr(site.store.templates, "delete", refuse_the_second)
        assert (await site.send("DELETE", f"{TEMPLATES}/mine")).status_code == 503
    assert (await site.get(f"{TEMPLATES}/mine")).json()["status"] == "ready"
    assert set(layers) == {asked[1], ROOT.name}
    await site.create_environment(template="mine")
    (environment,) = (await site.get(ENVIRONMENTS)).json()["environments"]
    await site.send("DELETE", f"{ENVIRONMENTS}/{environment['environment_id']}")
    assert len((await site.send("DELETE", f"{TEMPLATES}/mine")).json()["versions"]) == 1
    assert layers == {}


async def test_a_root_stays_as_long_as_environments_of_it(site: Site) -> None:
    """Also when the owner is gone, and with it another template of that root."""
    used = await site.add_template("stranger", name="used", is_public=True, root=ROOT)
    unused = await site.add_template("stranger", name="unused", root=ROOT)
    environment_id = await site.create_environment(template="used")
    layers = site.templates.layers.kept
    await site.store.users.delete(unused.owner_id)
    assert await site.templates.service.leaving.look() == 1
    assert set(layers) == {used.template_id, ROOT.name}
    await site.send("DELETE", f"{ENVIRONMENTS}/{environment_id}")
    assert await site.templates.service.leaving.look() == 1
    assert layers == {}
