"""What is asked for on a terminal, or read from standard input for programs."""

import sys

import typer

from sandgate.cli.exits import WrongUsage

_LONGEST_LINE = 64 * 1024


def read_line() -> str:
    """The first line of standard input, without its end."""
    return sys.stdin.readline(_LONGEST_LINE).removesuffix("\n").removesuffix("\r")


def ask(what: str, option: str, *, hide: bool = False, twice: bool = False) -> str:
    """What is typed. Raises ``WrongUsage`` as :func:`check_terminal` does."""
    check_terminal(option)
    typed: str = typer.prompt(what, hide_input=hide, confirmation_prompt=twice)
    return typed


def check_terminal(option: str) -> None:
    """Nobody can be asked where there is no terminal. Raises ``WrongUsage``, which names what programs give instead."""
    if not sys.stdin.isatty():
        raise WrongUsage(f"there is no terminal to ask on; use {option}")
