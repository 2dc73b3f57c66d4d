"""Whether a folder's file system belongs to this machine alone, or may be mounted by others too."""

import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
# Of disks and of memory. Whatever is not named here, nfs, lustre, ceph or fuse.s3fs, may be shared.
_ONE_MACHINE = {
    *("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs"),
    *("xfs", "zfs"),
}


def is_of_one_machine(folder: Path) -> bool:
    """True also where the system does not say (outside Linux)."""
    try:
        mounts = _MOUNTS.read_text()
    except OSError:
        return True
    return kind_of(folder.resolve(), mounts) in _ONE_MACHINE


def kind_of(path: Path, mounts: str) -> str:
    """The kind of file system that a path is on, like `ext4`.

    Args:
        mounts: the text of /proc/self/mountinfo, see proc_pid_mountinfo(5). Of several mounts on one
            place the last counts.
    """
    kind, deepest = "", -1
    for line in mounts.splitlines():
        mount, _, about = line.partition(" - ")
        place = Path(_unescaped(mount.split()[4]))
        if path.is_relative_to(place) and len(place.parts) >= deepest:
            kind, deepest = about.split()[0], len(place.parts)
    return kind


def _unescaped(text: str) -> str:
    r"""A space is written as `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
