"""Documents that are true: links, commands, versions, tables made from the code."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import sandgate
from sandgate.config.settings import PREFIX, Settings
from sandgate.core import errors
from tests.repository.tree import ROOT, read_text, tracked_files

DOCUMENTS = [path for path in tracked_files() if path.endswith(".md")]
LINK = re.compile(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)")
SCRIPT = re.compile(r"(?<![\w./-])(scripts/[a-z][a-z-]*)(?![\w./])")
# Run by name, or read by one that is, instead of imported; tzdata is what the standard library reads.
PROGRAMS = {"editables", "hatchling", "import-linter", "mypy", "pytest-asyncio", "ruff", "types-pyyaml", "tzdata", "uv"}
DEPENDENCY = re.compile(r"[A-Za-z0-9._-]+")


def _anchors(path: Path) -> set[str]:
    """The names that headings of a document can be linked by."""
    headings = re.findall(r"^#+ +(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _is_broken(document: str, target: str, anchor: str) -> bool:
    if "://" in target or target.startswith("mailto:"):
        return False
    path = (ROOT / document).parent / target if target else ROOT / document
    return not path.exists() or (bool(anchor) and path.suffix == ".md" and anchor not in _anchors(path))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    """Each relative link names a file, and a heading of it, that exists."""
    links = LINK.findall(read_text(document))
    broken = [f"{target}#{anchor}" for target, anchor in links if _is_broken(document, target, anchor)]
    assert not broken, f"{document} links to what is not there: {broken}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_scripts_can_be_run(document: str) -> None:
    """A script that a document names exists and is executable."""
    missing = sorted({name for name in SCRIPT.findall(read_text(document)) if not os.access(ROOT / name, os.X_OK)})
    assert not missing, f"{document} names commands that cannot be run: {missing}"


def test_every_script_is_named_for_developers() -> None:
    """docs/development.md tells of every script."""
    text = read_text("docs/development.md")
    scripts = [p for p in tracked_files() if p.startswith("scripts/") and os.access(ROOT / p, os.X_OK)]
    unnamed = [path for path in scripts if path not in text]
    assert not unnamed, f"Say in docs/development.md what these are for: {unnamed}"


def test_every_folder_of_tests_is_named_for_developers() -> None:
    """docs/development.md tells of every folder of tests, and of none that is not there."""
    named = set(re.findall(r"^\| `tests/(\w+)` \|", read_text("docs/development.md"), re.MULTILINE))
    there = {path.split("/")[1] for path in tracked_files() if path.startswith("tests/") and path.count("/") > 1}
    assert named == there


def test_the_changelog_tells_of_this_version() -> None:
    """What a version brings stands in CHANGELOG.md under its number."""
    headings = re.findall(r"^## +\[?([0-9][^\s\]]*)", read_text("CHANGELOG.md"), re.MULTILINE)
    assert sandgate.__version__ in headings, f"Add a section for {sandgate.__version__} to CHANGELOG.md"


def test_every_setting_is_documented() -> None:
    """The settings page has a row for each setting."""
    page = read_text("docs/configuration.md")
    missing = [name for name in Settings.model_fields if f"`{PREFIX}{name.upper()}`" not in page]
    assert not missing, f"Run scripts/check --write-docs; docs/configuration.md lacks {missing}"


def test_every_error_code_is_documented() -> None:
    """The errors page has a row for each code that an answer may carry."""
    page = read_text("docs/errors.md")
    classes = [item for item in vars(errors).values() if isinstance(item, type) and hasattr(item, "code")]
    missing = sorted({item.code for item in classes if f"`{item.code}`" not in page})
    assert not missing, f"Run scripts/check --write-docs; docs/errors.md lacks {missing}"


def test_generated_pages_are_current() -> None:
    """What the generator writes is what is committed."""
    done = subprocess.run([sys.executable, "scripts/docs.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _declared() -> list[str]:
    table = tomllib.loads(read_text("pyproject.toml"))
    lists = [table["project"]["dependencies"], *table["dependency-groups"].values()]
    found = (DEPENDENCY.match(entry) for entries in lists for entry in entries)
    return sorted({match.group() for match in found if match})


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_has_a_reason() -> None:
    """What the project takes from others is a decision, and the decision is written down."""
    record = read_text("docs/decisions/0001-dependencies.md")
    missing = [name for name in _declared() if f"| `{name}`" not in record]
    assert not missing, f"Say in docs/decisions/0001-dependencies.md why these are needed: {missing}"


def test_every_dependency_is_used() -> None:
    """What is imported nowhere is not taken from others, but for programs that are run."""
    roots = ("src/", "tests/", "bench/", "scripts/")
    code = "\n".join(read_text(path) for path in tracked_files() if path.startswith(roots))
    imported = set(re.findall(r"^\s*(?:import|from) (\w+)", code, re.MULTILINE))
    owners = packages_distributions()
    used = {_normal(name) for module in imported for name in owners.get(module, ())}
    unused = [name for name in _declared() if name not in PROGRAMS and _normal(name) not in used]
    assert not unused, f"Take these out of pyproject.toml and run scripts/lock: {unused}"


def test_every_dependency_is_locked() -> None:
    """The lock file names a version and hashes for each."""
    lock = read_text("requirements-dev.lock")
    pinned = set(re.findall(r"^([a-z0-9-]+)==\S+.*\\\n +--hash=sha256:", lock, re.MULTILINE))
    missing = sorted({name.lower() for name in _declared()} - pinned)
    assert not missing, f"Run scripts/lock; these are not locked: {missing}"


def test_the_lock_names_no_index() -> None:
    """Any mirror may serve what the lock names: only names, versions and hashes stand in it."""
    allowed = re.compile(r"[a-z0-9.-]+==\S+( ; .*)? \\$| +--hash=sha256:[0-9a-f]{64}")
    lines = (read_text("requirements.lock") + read_text("requirements-dev.lock")).splitlines()
    strange = [line for line in lines if not allowed.match(line)]
    assert not strange, f"The lock files hold more than versions and hashes; write them with scripts/lock: {strange}"


def test_decisions_are_numbered_without_gaps() -> None:
    """Each has a number of its own, which is in its name and its heading."""
    records = sorted(path for path in tracked_files() if path.startswith("docs/decisions/"))
    assert [int(Path(record).name[:4]) for record in records] == list(range(1, len(records) + 1))
    for number, record in enumerate(records, 1):
        assert read_text(record).startswith(f"# {number}. "), record
