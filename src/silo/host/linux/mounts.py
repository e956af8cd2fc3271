"""Mounts of the storage filter: the union, bounded scratch volumes, and what the kernel says is mounted."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from silo.host.linux import libc

_LOOP_CTL_GET_FREE: Final = 0x4C82
_LOOP_CONFIGURE: Final = 0x4C0A
_LO_FLAGS_AUTOCLEAR: Final = 4
_LOOP_CONFIG: Final = struct.Struct("=II232s64x")
_LOOP_INFO64: Final = struct.Struct("=QQQQQIIII64s64s32sQQ")
# As dockerd's overlay2 has it, whatever the kernel's defaults are: a layer is its files, with nothing to look up
# elsewhere.  A redirect in a layer could name any directory of the layers below.
_FIXED: Final = {"index": "off", "metacopy": "off", "redirect_dir": "nofollow"}
_MAX_VALUE: Final = 256  # bytes of one value for fsconfig(2), with the zero at its end (fs/fsopen.c)
_LOOP_MAJOR: Final = 7
_ESCAPED: Final = re.compile(r"\\(.)")
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


class MountEntry(msgspec.Struct, frozen=True):
    """One line of the mount table; ``options`` as they are there, see :func:`option`."""

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
                options,
                any(f.startswith("shared:") for f in fields[6:]),
            )
        )
    return entries


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)


def option(entry: MountEntry, name: str) -> str:
    """The value of one option of a mount; empty when it has none."""
    found = (text[len(name) + 1 :] for text in entry.options.split(",") if text.startswith(f"{name}="))
    return _plain(next(found, ""))


def upper_directory(union: MountEntry) -> str:
    """The upper directory of an overlay, as it was given."""
    return _ESCAPED.sub(r"\1", option(union, "upperdir"))


def mount_union(lower: Sequence[str], upper: str, work: str, target: str) -> None:
    """Mount an overlay; ``lower`` nearest first.  Any number of layers, whatever the length of their paths."""
    if any(len(os.fsencode(path)) >= _MAX_VALUE for path in (*lower, upper, work)):
        mount_union_by_page(lower, upper, work, target)
        return
    options: list[tuple[str, str | None]] = [("lowerdir+", path) for path in lower]
    options += [("upperdir", _escaped(upper)), ("workdir", _escaped(work)), *_FIXED.items()]
    try:
        libc.mount_filesystem("overlay", target, options, source="overlay")
    except OSError as exc:
        if exc.errno != errno.EINVAL or supports_lowerdir_plus():
            raise
        mount_union_by_page(lower, upper, work, target)


def supports_lowerdir_plus() -> bool:
    """Whether the kernel is 6.8 or later, which takes lower directories one by one."""
    numbers = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= (6, 8)


def mount_union_by_page(lower: Sequence[str], upper: str, work: str, target: str) -> None:
    """The same for older kernels and longer paths: mount(2) takes one page, so lower directories go by descriptor."""
    with contextlib.ExitStack() as stack:
        names = []
        for path in lower:
            fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            names.append(f"/proc/self/fd/{fd}")
        options = {
            "lowerdir": ":".join(names),
            "upperdir": _escaped(upper, ","),
            "workdir": _escaped(work, ","),
            **_FIXED,
        }
        data = ",".join(f"{key}={value}" for key, value in options.items())
        libc.mount("overlay", target, "overlay", 0, data)


def _escaped(path: str, separator: str = "") -> str:
    """As overlayfs reads upper and work directory: a backslash makes the next character an ordinary one."""
    return "".join(f"\\{letter}" if letter in f"\\{separator}" else letter for letter in path)


def mount_image(image: Path, target: Path) -> None:
    """Mount an ext4 image file read-write by a loop device that goes away with the mount.  Raises OSError.

    An image that a device still has (its mount was taken away lazily and somebody is still in it) is mounted by that
    device again: two devices on one image would be two file systems that destroy each other.
    """
    if _mount_again(image, target):
        return
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(16):  # another process may take the free device before us
            name, device = _open_loop(fcntl.ioctl(control, _LOOP_CTL_GET_FREE))
            try:
                _configure(device, backing, image)
                libc.mount(name, str(target), "ext4")
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


def _mount_again(image: Path, target: Path) -> bool:
    used = _loop_of(image)
    if used is None:
        return False
    device = os.open(used, os.O_RDWR | os.O_CLOEXEC)  # as long as we have it open it keeps its image
    try:
        if _loop_of(image) != used:
            return False
        libc.mount(used, str(target), "ext4")
        return True
    finally:
        os.close(device)


def _loop_of(image: Path) -> str | None:
    """The loop device that has the image, if any."""
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if entry.read_text("utf-8", "surrogateescape").rstrip("\n") == os.path.realpath(image):
                return f"/dev/{entry.parts[3]}"
    return None


def _open_loop(number: int) -> tuple[str, int]:
    """A loop device by number; its node is made where nobody does that (a /dev without udev)."""
    name = f"/dev/loop{number}"
    with contextlib.suppress(FileExistsError):
        os.mknod(name, stat.S_IFBLK | 0o660, os.makedev(_LOOP_MAJOR, number))
    return name, os.open(name, os.O_RDWR | os.O_CLOEXEC)


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


def unmount(path: Path | str, *, lazily: bool = False) -> bool:
    """Unmount; what is not mounted is no error.

    What is busy (a shell of somebody's is in it) goes when they leave, if ``lazily``; True when that was needed.
    """
    try:
        libc.umount(str(path), libc.UMOUNT_NOFOLLOW)
    except OSError as exc:
        if exc.errno == errno.EBUSY and lazily:
            libc.umount(str(path), libc.UMOUNT_NOFOLLOW | libc.MNT_DETACH)
            return True
        if exc.errno not in {errno.EINVAL, errno.ENOENT}:
            raise
    return False
