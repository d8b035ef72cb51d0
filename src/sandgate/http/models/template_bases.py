"""Root file systems that a template can rest on instead of another template."""

from typing import Annotated

from pydantic import Field, field_validator

from sandgate.core.image import ImageReference
from sandgate.core.recipe import Recipe
from sandgate.http.models.base import Model
from sandgate.http.models.parts import strict

_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class TarBase(Model):
    """A root file system in a tar, compressed or not, or in an image archive, which is uploaded once."""

    model_config = strict({"tar": _SHA256})

    tar: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="The SHA-256 of the archive.")]


class ImageBase(Model):
    """A root file system in an image of a registry."""

    model_config = strict({"image": "registry.example.com/team/image:1.0"})

    image: Annotated[
        str,
        Field(
            max_length=500,
            description="`registry/name:tag`, `registry/name@sha256:…`, or both; there is no usual registry.",
        ),
    ]

    @field_validator("image")
    @classmethod
    def _check_image(cls, image: str) -> str:
        ImageReference.parse(image)
        return image


def describe_root(recipe: Recipe) -> TarBase | ImageBase:
    """What a recipe rests on that rests on no template."""
    return TarBase(tar=recipe.tar or "") if recipe.image is None else ImageBase(image=recipe.image)
