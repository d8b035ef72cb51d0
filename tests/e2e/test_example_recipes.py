"""Recipes of examples/templates: each is one that the API takes, and is built with what of it the tests have."""

import json
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from bench.p07_preload import build, read_recipe
from bench.sandgate_server import Server, create, delete, execute
from sandgate.cli.workflows.documents import read_document
from sandgate.http.models.templates import BuildTemplate
from tests.e2e.package_index import HOST, package_index

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
RECIPES = sorted((EXAMPLES / "templates").iterdir())
# Of each package the module that it brings where that is called otherwise.
_MODULES = {"scikit-learn": "sklearn"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_is_one(path: Path) -> None:
    """The API takes it, what is imported beforehand comes with it, it is of the name of its file, and told of."""
    recipe = BuildTemplate.model_validate(read_document(str(path)).value)
    assert recipe.name == path.stem
    brought = {_MODULES.get(name, name) for name in recipe.packages}
    assert {module.partition(".")[0] for module in recipe.preload} <= brought
    assert f"(templates/{path.name})" in (EXAMPLES / "README.md").read_text()


def _is_here(package: str) -> bool:
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.fixture(scope="module")
def reduced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[str, Any]]]:
    """A server, and the recipe of data with the packages that are here, upon the Python that they are for."""
    recipe = read_recipe()
    packages = [name for name in recipe["packages"] if _is_here(name)]
    modules = {_MODULES.get(name, name) for name in packages}
    preload = [module for module in recipe["preload"] if module.partition(".")[0] in modules]
    base = f"python-{sys.version_info.major}.{sys.version_info.minor}"
    with package_index(tmp_path_factory.mktemp("index"), *packages) as index:
        settings = {"SANDGATE_NETWORK_ALLOW_SPECIAL": HOST, "SANDGATE_PACKAGE_INDEX": index}
        with Server({**settings, "SANDGATE_PACKAGE_HOSTS": "", "SANDGATE_SPARE_SANDBOXES": "1"}) as server:
            yield server, {**recipe, "base": base, "packages": packages, "preload": preload}


_WORK = """
import json, os, sys
loaded = [name for name in {preload} if name in sys.modules]
import numpy, pandas, matplotlib.pyplot as plt
plt.plot([1, 2]); plt.savefig("drawn.png")
size = os.path.getsize("drawn.png")
print(json.dumps([loaded, float(pandas.DataFrame({{"a": numpy.arange(4.0)}})["a"].mean()), size > 1000]))
"""


@pytest.mark.needs_root_namespaces
@pytest.mark.needs_own_python
def test_what_works_on_data_is_imported_before_anybody_asks(reduced: tuple[Server, dict[str, Any]]) -> None:
    """Modules, limits and variables of the recipe are those of its environments, and the libraries work there."""
    server, recipe = reduced
    assert {"numpy", "pandas", "matplotlib"} <= set(recipe["packages"])
    with server.connect() as connection:
        built = build(connection, recipe)
        assert (built["preload"], built["limits"]["memory_mb"]) == (recipe["preload"], recipe["limits"]["memory_mb"])
        made = create(connection, built["name"])
        ran = execute(connection, made, {"code": _WORK.format(preload=recipe["preload"])})
        assert json.loads(ran["stdout"]) == [recipe["preload"], 1.5, True]
        delete(connection, made)
