"""What is taken from others is pinned by hash, and the bill of materials tells of all of it."""

import importlib.util
import json
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import sandgate
from tests.repository.tree import ROOT, read_text

LOCKS = ("requirements.lock", "requirements-dev.lock")


def _pins(lock: str) -> Mapping[str, set[str]]:
    """The hashes of each ``name==version`` of a lock file, read line by line."""
    pins: dict[str, set[str]] = {}
    last: set[str] = set()
    for line in read_text(lock).splitlines():
        if line[0] != " ":
            last = pins.setdefault(line.split(" ")[0], set())
        else:
            last.add(line.strip(" \\").removeprefix("--hash=sha256:"))
    return pins


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """The program behind scripts/sbom."""
    spec = importlib.util.spec_from_file_location("sbom", ROOT / "scripts/sbom.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def document(maker: ModuleType) -> dict[str, Any]:
    """The bill of materials of this checkout."""
    parsed: dict[str, Any] = json.loads(maker.bill(read_text("requirements.lock")))
    return parsed


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_file_has_a_hash(lock: str) -> None:
    """Each entry is one version, and what may be installed for it is known by SHA-256."""
    pins = _pins(lock)
    assert len(pins) > 40
    loose = [pin for pin in pins if not re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.+!-]*", pin)]
    open_ = [pin for pin, hashes in pins.items() if not hashes or not all(map(_is_sha256, hashes))]
    assert (loose, open_) == ([], [])


def _is_sha256(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", text) is not None


def test_development_uses_what_the_service_uses() -> None:
    """The tests run with the very files that an installation of the service has."""
    service, development = map(_pins, LOCKS)
    assert {pin: development.get(pin) for pin in service} == service


def test_the_bill_is_valid(maker: ModuleType) -> None:
    """As the schema of CycloneDX 1.6 wants it; what is wrong is found."""
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    text = maker.bill(read_text("requirements.lock"))
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"library"', '"libarry"')) is not None


def test_the_bill_tells_of_all_that_is_locked(document: dict[str, Any]) -> None:
    """Every version, with every hash, and nothing else."""
    told = {
        f"{each['name']}=={each['version']}": {
            file["content"] for reference in each["externalReferences"] for file in reference["hashes"]
        }
        for each in document["components"]
    }
    assert told == _pins("requirements.lock")
    assert all(each["purl"] == f"pkg:pypi/{each['name']}@{each['version']}" for each in document["components"])


def test_the_bill_tells_what_it_is_of(document: dict[str, Any]) -> None:
    """The service in this version, and what it asks for itself."""
    itself = document["metadata"]["component"]
    assert (itself["name"], itself["version"]) == ("sandgate", sandgate.__version__)
    asked = next(each["dependsOn"] for each in document["dependencies"] if each["ref"] == itself["bom-ref"])
    wanted = re.findall(
        r'^    "([a-z0-9-]+)', read_text("pyproject.toml").split("[dependency-groups]")[0], re.MULTILINE
    )
    listed = {ref.removeprefix("pkg:pypi/").partition("@")[0] for ref in asked}
    assert listed == {name for name in wanted if any(pin.startswith(f"{name}==") for pin in _pins("requirements.lock"))}
    assert {"fastapi", "uv", "sqlalchemy"} <= listed


def test_the_bill_is_always_the_same(maker: ModuleType) -> None:
    """No moment and no chance is in it; another lock is another bill."""
    lock = read_text("requirements.lock")
    assert maker.bill(lock) == maker.bill(lock)
    assert json.loads(maker.bill(lock))["serialNumber"] != json.loads(maker.bill(f"{lock}\n"))["serialNumber"]
