"""Mounts of the storage filter: the union, bounded scratch volumes, and what the kernel says is mounted."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from silo.host.linux import libc

_LOOP_CTL_GET_FREE: Final = 0x4C82
_LOOP_CONFIGURE: Final = 0x4C0A
_LO_FLAGS_AUTOCLEAR: Final = 4
_LO_FLAGS_DIRECT_IO: Final = 16
_LOOP_CONFIG: Final = struct.Struct("=II232s64x")
_LOOP_INFO64: Final = struct.Struct("=QQQQQIIII64s64s32sQQ")
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


class MountEntry(msgspec.Struct, frozen=True):
    """One line of the mount table."""

    target: str
    kind: str
    source: str
    options: str
    shared: bool


def mount_table() -> list[MountEntry]:
    """What is mounted, as this process sees it."""
    entries = []
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, source, options) = left.split(), right.split(" ", 2)
        entries.append(
            MountEntry(
                _plain(fields[4]),
                kind,
                _plain(source),
                _plain(options),
                any(f.startswith("shared:") for f in fields[6:]),
            )
        )
    return entries


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)


def option(entry: MountEntry, name: str) -> str:
    """The value of one option of a mount; empty when it has none."""
    return next((text[len(name) + 1 :] for text in entry.options.split(",") if text.startswith(f"{name}=")), "")


def mount_union(lower: Sequence[str], upper: str, work: str, target: str) -> None:
    """Mount an overlay; ``lower`` nearest first.  Any number of layers, whatever the length of their paths."""
    fixed: list[tuple[str, str | None]] = [("index", "off"), ("metacopy", "off")]
    try:
        libc.mount_filesystem(
            "overlay",
            target,
            [*(("lowerdir+", path) for path in lower), ("upperdir", upper), ("workdir", work), *fixed],
            source="overlay",
        )
    except OSError as exc:
        if exc.errno != errno.EINVAL or supports_lowerdir_plus():
            raise
        mount_union_by_page(lower, upper, work, target)


def supports_lowerdir_plus() -> bool:
    """Whether the kernel is 6.8 or later, which takes lower directories one by one."""
    numbers = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= (6, 8)


def mount_union_by_page(lower: Sequence[str], upper: str, work: str, target: str) -> None:
    """The same for older kernels: mount(2) takes one page of options, so lower directories go by descriptor."""
    with contextlib.ExitStack() as stack:
        names = []
        for path in lower:
            fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            names.append(f"/proc/self/fd/{fd}")
        data = f"lowerdir={':'.join(names)},upperdir={upper},workdir={work},index=off,metacopy=off"
        libc.mount("overlay", target, "overlay", 0, data)


def mount_image(image: Path, target: Path) -> None:
    """Mount an ext4 image file read-write by a loop device that goes away with the mount."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(16):  # another process may take the free device before us
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
            try:
                _configure(device, backing, image)
                libc.mount(f"/dev/loop{number}", str(target), "ext4", 0, "")
                return
            except OSError as exc:
                if exc.errno != errno.EBUSY:
                    raise
            finally:
                os.close(device)
        raise OSError(errno.EBUSY, "no free loop device", str(image))
    finally:
        os.close(backing)
        os.close(control)


def _configure(device: int, backing: int, image: Path) -> None:
    name = str(image).encode()[-63:]
    info = _LOOP_INFO64.pack(0, 0, 0, 0, 0, 0, 0, 0, _LO_FLAGS_AUTOCLEAR, name, b"", b"", 0, 0)
    fcntl.ioctl(device, _LOOP_CONFIGURE, _LOOP_CONFIG.pack(backing, 0, info))


def share(path: Path) -> bool:
    """Make ``path`` a shared mount of itself, so that mounts below it reach slave namespaces; False if it was one."""
    if any(entry.target == str(path) and entry.shared for entry in mount_table()):
        return False
    libc.mount(str(path), str(path), "", libc.MS_BIND)
    libc.mount("none", str(path), "", libc.MS_SHARED)
    return True


def unmount(path: Path | str, *, lazily: bool = False) -> None:
    """Unmount; what is not mounted is no error."""
    try:
        libc.umount(str(path), libc.UMOUNT_NOFOLLOW | (libc.MNT_DETACH if lazily else 0))
    except OSError as exc:
        if exc.errno not in {errno.EINVAL, errno.ENOENT}:
            raise
