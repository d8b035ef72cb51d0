"""Archives, sound and hostile, as tests send them, and how they read those that come."""

import gzip
import io
import stat
import struct
import tarfile
import zipfile
from typing import Any

LARGE = bytes(range(256)) * 2000
LONG = "l" * 120 + "/" + "ö" * 100
TREE = {"a.txt": b"a", "in/deep/b.bin": LARGE, "in/empty": b"", f"{LONG}/c": b"c"}


def tar(*entries: tuple[str, Any], form: int = tarfile.PAX_FORMAT, **fields: Any) -> bytes:
    """A tar archive of files by name; what is no bytes is an entry's own fields."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.mtime = 1_600_000_000
            data = content if isinstance(content, bytes) else b""
            for field, value in (fields | ({} if isinstance(content, bytes) else content)).items():
                setattr(entry, field, value)
            entry.size = len(data) or entry.size
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def zipped(*entries: tuple[str, bytes], mode: int = 0o100640) -> bytes:
    """A zip archive of files by name."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name, (2020, 9, 13, 12, 26, 40))
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return out.getvalue()


FORMS = {"tar": tar, "tar.gz": lambda *entries: gzip.compress(tar(*entries)), "zip": zipped}


def read_archive(form: str, content: bytes) -> dict[str, bytes]:
    """Files of an archive, as the standard library reads them."""
    if form == "zip":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.testzip() is None
            return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = {entry.name: archive.extractfile(entry) for entry in archive if entry.isfile()}
        return {name: file.read() for name, file in files.items() if file is not None}


def _spoilt(archive: bytes) -> bytes:
    return b"b" + archive[1:]


def _pax(**records: str) -> bytes:
    return tar(("a", {"pax_headers": records}))


def _zip_with(offset: int, value: bytes) -> bytes:
    """A zip with other bytes in the table of contents."""
    archive = zipped(("a.txt", b"some content"))
    at = archive.index(b"PK\1\2") + offset
    return archive[:at] + value + archive[at + len(value) :]


def _overlapping() -> bytes:
    """Many entries of one table of contents that all are the same bytes."""
    archive = zipped(("a" * 5, bytes(5000)))
    begin, end = archive.index(b"PK\1\2"), archive.index(b"PK\5\6")
    entry = archive[begin:end]
    many = [entry.replace(b"aaaaa", b"%05d" % number) for number in range(50)]
    closing = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 50, 50, len(entry) * 50, begin, 0)
    return archive[:begin] + b"".join(many) + closing


HOSTILE = {
    "upwards": ("tar", tar(("good", b"g"), ("in/../../x", b"x")), "leads upwards"),
    "absolute": ("tar", tar(("good", b"g"), ("/tmp/x", b"x")), "is absolute"),
    "through a link": (
        "tar",
        tar(("l", {"type": tarfile.SYMTYPE, "linkname": "."}), ("l/x", b"x")),
        "through what is no folder",
    ),
    "link out": ("tar", tar(("in/l", {"type": tarfile.SYMTYPE, "linkname": "../../x"})), "leads out of the folder"),
    "absolute link": ("tar", tar(("l", {"type": tarfile.SYMTYPE, "linkname": "/etc"})), "leads out of the folder"),
    "hard link out": ("tar", tar(("h", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"})), "is absolute"),
    "hard link up": ("tar", tar(("h", {"type": tarfile.LNKTYPE, "linkname": "../x"})), "leads upwards"),
    "hard link to none": ("tar", tar(("h", {"type": tarfile.LNKTYPE, "linkname": "x"})), "which has not come"),
    "hard link to a link": (
        "tar",
        tar(("l", {"type": tarfile.SYMTYPE, "linkname": "x"}), ("h", {"type": tarfile.LNKTYPE, "linkname": "l"})),
        "of what is no file",
    ),
    "device": ("tar", tar(("d", {"type": tarfile.CHRTYPE, "devmajor": 1})), "is a device"),
    "pipe": ("tar", tar(("p", {"type": tarfile.FIFOTYPE})), "is a named pipe"),
    "sparse": ("tar", tar(("s", {"type": b"S", "size": 0})), "is a sparse file"),
    "sparse in pax": ("tar", _pax(**{"GNU.sparse.realsize": str(1 << 50)}), "is a sparse file"),
    "twice": ("tar", tar(("a", b"1"), ("a", b"2")), "comes twice"),
    "file and folder": ("tar", tar(("a", b"1"), ("a/b", b"2")), "through what is no folder"),
    "NUL": ("tar", _pax(path="a\0b"), "has a NUL"),
    "long name": ("tar", _pax(path="x" * 300), "too long"),
    "checksum": ("tar", _spoilt(tar(("a", b"1"))), "checksum"),
    "cut off": ("tar", tar(("a", LARGE))[:2000], "ends too soon"),
    "no end": ("tar", tar(("a", b"1"))[:1024], "without the mark"),
    "nothing": ("tar", b"", "ends too soon"),
    "odd size": ("tar", _pax(size="-5"), "no number"),
    "no gzip": ("tar.gz", tar(("a", b"1")), "no gzip"),
    "gzip cut off": ("tar.gz", gzip.compress(tar(("a", LARGE)))[:200], "ends too soon"),
    "no zip": ("zip", b"x" * 3000, "no zip file"),
    "zip upwards": ("zip", zipped(("../x", b"x")), "leads upwards"),
    "zip absolute": ("zip", zipped(("/x", b"x")), "is absolute"),
    "zip link out": ("zip", zipped(("l", b"/etc"), mode=stat.S_IFLNK | 0o777), "leads out of the folder"),
    "zip device": ("zip", zipped(("d", b""), mode=stat.S_IFCHR | 0o666), "is no file, folder or link"),
    "zip twice": ("zip", zipped(("a", b"1"), ("b", b"1")).replace(b"b", b"a"), "comes twice"),
    "zip encrypted": ("zip", _zip_with(8, b"\1\0"), "is encrypted"),
    "zip method": ("zip", _zip_with(10, b"\x0c\0"), "method 12"),
    "zip checksum": ("zip", _zip_with(16, b"\0\0\0\0"), "its checksum"),
    "zip length": ("zip", _zip_with(24, b"\3\0\0\0"), "its length"),
    "zip place": ("zip", _zip_with(42, b"\7\0\0\0"), "is not where"),
    "zip overlapping": ("zip", _overlapping(), "shares its bytes"),
    "zip cut off": ("zip", zipped(("a", LARGE))[:-30], "no zip file"),
}
