"""``sandgate version``."""

import typer

from sandgate import __version__


def print_version(wanted: bool) -> None:
    """Print it, when it is wanted, and end."""
    if wanted:
        typer.echo(f"sandgate {__version__}")
        raise typer.Exit


def version() -> None:
    """Print the version."""
    print_version(True)
