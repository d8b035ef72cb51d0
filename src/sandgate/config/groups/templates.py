"""Templates that users have built."""

from pathlib import Path

from sandgate.config.groups.row import Group, setting


class TemplateSettings(Group):
    """Templates that users have built: how many, how large, with what."""

    max_templates_per_user: int = setting(
        20, "Built templates of one user, versions counted one by one; 0: nobody builds any.", ge=0, le=10_000
    )
    max_template_builds: int = setting(2, "Templates that are being built at once, on this server.", ge=1, le=100)
    max_template_builds_per_user: int = setting(1, "Templates of one user that are being built at once.", ge=1, le=100)
    template_build_timeout_s: float = setting(
        900.0, "How long the build of a template may take.", unit="s", ge=1, le=86_400
    )
    template_build_memory_bytes: int = setting(
        2 * 1024**3, "Memory of processes while a template is built.", unit="bytes", ge=64 * 1024**2
    )
    template_build_disk_bytes: int = setting(
        3 * 1024**3,
        "What a build may write, with what is thrown away at its end. It is held in memory.",
        unit="bytes",
        ge=64 * 1024**2,
    )
    template_build_cpu_millis: int = setting(
        2000, "Processor time of a build, in thousandths of a core.", ge=100, le=1_024_000
    )
    max_template_bytes: int = setting(
        2 * 1024**3, "The files of one built template together.", unit="bytes", ge=1024**2
    )
    max_template_files: int = setting(200_000, "The files of one built template.", ge=100, le=10_000_000)
    max_template_archive_bytes: int = setting(
        2 * 1024**3, "The archive that the root file system of a template comes in.", unit="bytes", ge=1024**2
    )
    max_template_log_bytes: int = setting(
        1024**2, "How much of what a build says is kept.", unit="bytes", ge=1024, le=8 * 1024**2
    )
    insecure_registries: str = setting(
        "",
        "Registries, `host` or `host:port`, separated by commas, that images are fetched from without TLS. One at a "
        "private address has to be in `network_allow_special`, too.",
    )
    registry_certificates: Path | None = setting(
        None,
        "File with certificates of authorities, in PEM, that the registries of images are believed by, beside those "
        "that the system trusts.",
    )
    package_index: str = setting(
        "",
        "The package index of builds whose recipe names none, as `https://packages.example.com/simple`. Empty: recipes "
        "with packages have to name one.",
        pattern=r"^(https?://[^\s@]+)?$",
    )
    package_hosts: str = setting(
        "",
        "Hosts, separated by commas, that a build with packages from that index may reach beside it: where it keeps "
        "its files.",
    )
    template_idle_timeout_s: float = setting(
        900.0,
        "What is kept ready for environments of a template, its imported packages above all, is given up when there is "
        "no environment of it and none was asked for this long; the next one brings it back. 0: never.",
        unit="s",
        ge=0,
    )
    max_live_templates: int = setting(
        32,
        "Built templates of which something is kept ready, or that environments are of, at once, on this server.",
        ge=1,
        le=200,
    )
    max_live_templates_per_user: int = setting(
        4, "Built templates that the live environments of one user are of, at once, on this server.", ge=1, le=200
    )
    template_memory_bytes: int = setting(
        1024**3,
        "Memory for what a built template imports beforehand, and what is forked from it until it is moved. It is "
        "counted in no user's quota; environments share it.",
        unit="bytes",
        ge=64 * 1024**2,
    )
