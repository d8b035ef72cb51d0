"""Commands that are a group of others."""

import typer


def command_group(text: str) -> typer.Typer:
    """One without commands so far; asked for none of them it says what there are."""
    return typer.Typer(no_args_is_help=True, help=text, rich_markup_mode=None)
