"""The writable part of a container's layer: a directory, or a file system of its own when it has a bound."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from silo.host.linux import tree
from silo.host.results import Code, HostError

FOLDER: Final = "sandbox"
IMAGE: Final = "sandbox.img"
MIN_IMAGE: Final = 8 << 20
_PROGRAMS: Final = "/usr/sbin:/sbin:/usr/bin:/bin"


def make(folder: Path) -> None:
    """Upper and work directory of the union.  Upper's mode is that of the container's root directory."""
    for path, mode in ((folder, 0o711), (folder / "upper", 0o755), (folder / "work", 0o711)):
        if not path.exists():
            path.mkdir()
            path.chmod(mode)  # whatever the umask is


def clean_work(folder: Path) -> None:
    """Empty the work directory of what an unclean unmount left: the kernel wants it so."""
    tree.remove(folder / "work" / "work")


def expand(layer: Path, size: int) -> None:
    """Bound the layer to ``size`` bytes, or let it grow to them; never shrinks.  Needs e2fsprogs.

    Raises HostError when the layer has content already that is not in an image.
    """
    image = layer / IMAGE
    size = max(size, MIN_IMAGE)
    if image.exists():
        if image.stat().st_size < size:
            os.truncate(image, size)
        _run("e2fsck", "-fp", str(image))
        _run("resize2fs", str(image))
        return
    if os.path.lexists(layer / FOLDER / "upper") and any((layer / FOLDER / "upper").iterdir()):
        raise HostError(Code.NOT_SUPPORTED, f"{layer.name}: a layer with content cannot be given a bound")
    try:
        with image.open("xb") as file:
            file.truncate(size)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(image))
    except BaseException:
        image.unlink(missing_ok=True)
        raise
    tree.remove(layer / FOLDER)


def _run(program: str, *arguments: str) -> None:
    path = shutil.which(program, path=_PROGRAMS)
    if path is None:
        raise HostError(Code.NOT_SUPPORTED, f"a bounded scratch volume needs {program}: install the package e2fsprogs")
    done = subprocess.run([path, *arguments], capture_output=True, text=True, errors="replace", check=False)
    if done.returncode not in {0, 1}:  # 1: e2fsck corrected something
        raise HostError(Code.FAIL, f"{program} {arguments[-1]}: {(done.stderr or done.stdout).strip()}")
