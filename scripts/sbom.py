#!/usr/bin/env python3
"""The bill of materials of the service, in CycloneDX: what requirements.lock names, with versions and hashes.

The same checkout gives the same bytes, on every machine and at any time: nothing is asked, and no moment is noted.
"""

import re
import sys
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

import sandgate

ROOT = Path(__file__).resolve().parent.parent
PIN = re.compile(
    r"^(?P<name>[a-z0-9.-]+)==(?P<version>\S+)(?: ; (?P<marker>.+))? \\\n(?P<hashes>(?: +--hash=.+\n)+)", re.MULTILINE
)
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
NAME = re.compile(r"[A-Za-z0-9._-]+")


def components(lock: str) -> Iterator[Component]:
    """Everything that the lock names. What only some machines need, by its marker, is optional."""
    for pin in PIN.finditer(lock):
        url = PackageURL("pypi", name=pin["name"], version=pin["version"])
        files = [HashType(alg=HashAlgorithm.SHA_256, content=content) for content in HASH.findall(pin["hashes"])]
        yield Component(
            type=ComponentType.LIBRARY,
            name=pin["name"],
            version=pin["version"],
            bom_ref=str(url),
            purl=url,
            scope=ComponentScope.OPTIONAL if pin["marker"] else ComponentScope.REQUIRED,
            # A component's own hashes would be of one file; these are of each that may be installed.
            external_references=[
                ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(str(url)), hashes=files)
            ],
        )


def bill(lock: str) -> str:
    """The whole document, as text."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    url = PackageURL("pypi", name="sandgate", version=sandgate.__version__)
    itself = Component(
        type=ComponentType.APPLICATION,
        name="sandgate",
        version=sandgate.__version__,
        description=project["description"],
        bom_ref=str(url),
        purl=url,
        licenses=[LicenseExpression(project["license"])],
    )
    bom = Bom(components=components(lock), serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"{url}\n{lock}"))
    bom.metadata.component = itself
    bom.metadata.timestamp = None  # type: ignore[assignment]  # the document may do without, and has to
    direct = {match[0].lower() for entry in project["dependencies"] if (match := NAME.match(entry))}
    bom.register_dependency(itself, [each for each in bom.components if each.name in direct])
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(bill((ROOT / "requirements.lock").read_text(encoding="utf-8")))
