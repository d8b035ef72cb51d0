"""Isolation classes and what they are made of."""

from typing import Literal

from sandgate.config.groups.row import Group, setting


class SandboxSettings(Group):
    """Isolation classes and what they are made of."""

    allow_weak_isolation: bool = setting(
        False,
        "Serve the `process` class, which keeps hostile code apart from nothing, where the machine cannot hold "
        "the `standard` class.",
    )
    isolation: Literal["standard", "gvisor", "process"] = setting(
        "standard",
        "Class of new environments that ask for none, and of workflows' steps. `gvisor` needs `runsc`, `process` needs "
        "`allow_weak_isolation`.",
    )
    gvisor_templates: str = setting(
        "", "Templates, separated by commas, whose environments are of the `gvisor` class when they ask for none."
    )
    runsc: str = setting("", "The program `runsc` for the `gvisor` class. Empty: the one on the path of programs.")
    gvisor_platform: Literal["auto", "systrap", "ptrace"] = setting(
        "auto",
        "What gVisor's kernel runs programs with. `auto` takes `systrap` where `runsc` has it, otherwise `ptrace`; "
        "`sandgate doctor` tries it.",
    )
    gvisor_spare_sandboxes: int = setting(
        2,
        "Sandboxes of the `gvisor` class that are made before they are asked for, of each template that has been asked "
        "for in that class; 0 makes none. Each holds some 40 MB of memory.",
        ge=0,
        le=100,
    )
    environment_disk: Literal["memory", "image"] = setting(
        "memory",
        "Where files of environments of the `standard` class are: in memory, or in an image for each on the disk of "
        "the state folder, where they take no memory. `image` needs what volumes need; `sandgate doctor` tries it.",
    )
    languages: str = setting(
        "",
        "Languages that code can be written in beside Python, `bash` and `javascript`, separated by semicolons, as in "
        "`perl.pl=perl {file}; ruby.rb=ruby {file}`: a name, how the file with the code ends, and the command that "
        "runs it. Templates list those whose program is there.",
    )
    interpreters: str = setting("", "Folders to look for interpreters in before all others, separated by colons.")
    host_id_base: int = setting(
        0,
        "First of the 65,536 user ids of the host that the server and its sandboxes run as; no account may have one of "
        "them. 0: a block above 1,879,048,192 that is chosen by the path of the state folder, so that servers side by "
        "side share none.",
        ge=0,
        le=4_000_000_000,
    )
    spare_sandboxes: int | None = setting(
        None,
        "Sandboxes of each template in use that are made before they are asked for, some 1.7 MB of memory each; 0: "
        "none. Unset: as many as a 64th of the server's memory holds, 8 to 100.",
        ge=0,
        le=1000,
    )
    most_spare_sandboxes: int | None = setting(
        None,
        "The most of them after many were asked for at once; fewer again when it is quiet. Unset: a quarter more.",
        ge=0,
        le=1000,
    )
