"""Files of environments: how large, how many, how long."""

from sandgate.config.groups.row import Group, setting


class FileSettings(Group):
    """Files of environments: how large, how many, how long."""

    max_file_bytes: int = setting(
        16 * 1024**3, "Largest file that is written to or read from an environment.", unit="bytes", ge=1
    )
    file_operation_timeout_s: float = setting(
        30.0, "How long an environment may take to do something with its files.", unit="s", ge=0.1, le=600
    )
    file_transfer_timeout_s: float = setting(
        3600.0, "How long the content of one file may be on its way.", unit="s", ge=1, le=86_400
    )
    max_file_link_lifetime_s: int = setting(
        7 * 86_400, "How long a link to a file may be good for.", unit="s", ge=1, le=366 * 86_400
    )
    file_search_timeout_s: float = setting(
        10.0, "How long one search in the files of an environment may take.", unit="s", ge=0.1, le=300
    )
    max_watched_entries: int = setting(10_000, "Files and folders in a folder that is watched.", ge=1, le=1_000_000)
    max_watches_per_environment: int = setting(
        4, "Watches of one environment at once; each takes the place of an execution.", ge=1, le=64
    )
    max_archive_entries: int = setting(
        100_000, "Files, folders and links in one archive, up or down.", ge=1, le=10_000_000
    )
    max_archive_bytes: int = setting(
        16 * 1024**3, "Content of one archive, packed and unpacked, up or down.", unit="bytes", ge=1
    )
