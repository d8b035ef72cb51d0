"""Where a volume can be in an environment."""

import pytest

from sandgate.core.volume import find_overlap, find_path_problem


@pytest.mark.parametrize(
    "path",
    ["/data", "/mnt/data", "/workspace/data", "/home/user/data", "/tmp/x", "/var/data", "/root/x", "/ä/b c",
     "/" + "x" * 255, "/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p", "/..data", "/usrlocal", "/opt"],
)  # fmt: skip
def test_places_that_can_be(path: str) -> None:
    """Whatever is not the environment's own."""
    assert find_path_problem(path) is None


@pytest.mark.parametrize(
    "path",
    ["", "/", "data", "./data", "//data", "/data/", "/a//b", "/a/./b", "/a/../b", "/..", "/proc", "/proc/self",
     "/sys/x", "/dev/shm", "/etc", "/usr/lib/python3", "/bin", "/lib64/x", "/run/x", "/workspace", "/home",
     "/home/user", "/tmp", "/var/tmp", "/var/empty/x", "/root", "/a\0", "/a\n", "/\ud800", "/" + "x" * 256,
     "/" + "ä" * 200, "/x" * 600, "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17"],
)  # fmt: skip
def test_places_that_cannot_be(path: str) -> None:
    """Each has a reason."""
    assert find_path_problem(path)


def test_volumes_in_each_other() -> None:
    """Names that only begin alike are apart."""
    assert find_overlap(["/data", "/data2", "/data-x", "/mnt/data"]) is None
    assert find_overlap(["/data/x/y", "/mnt", "/data"]) == ("/data", "/data/x/y")
    assert find_overlap(["/a", "/a"]) == ("/a", "/a")
    assert find_overlap([]) is None
