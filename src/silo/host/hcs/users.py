"""Who a process runs as: the container's own passwd and group files, read inside its root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from silo.errors import InvalidParameter
from silo.host.linux.paths import read_in_root

MAX_FILE: Final = 4 << 20
MAX_ID: Final = (1 << 31) - 1


class User(msgspec.Struct, frozen=True):
    """Numeric ids of a process."""

    uid: int
    gid: int
    additional: tuple[int, ...] = ()


def resolve(root: Path, user: str, extra_groups: Sequence[str] = ()) -> User:
    """``name|uid[:group|gid]`` as ids.  Raises InvalidParameter with dockerd's texts."""
    passwd, groups = _read(root, "/etc/passwd"), _read(root, "/etc/group")
    return decide(passwd, groups, user, extra_groups)


def _read(root: Path, path: str) -> list[list[str]]:
    try:
        text = read_in_root(root, path, MAX_FILE).decode("utf-8", "replace")
    except OSError:
        return []
    return [line.split(":") for line in text.splitlines() if line and not line.startswith("#")]


def decide(
    passwd: Sequence[Sequence[str]], groups: Sequence[Sequence[str]], user: str, extra_groups: Sequence[str] = ()
) -> User:
    """Pure: the rows of both files and what is asked for."""
    name, sep, group = user.partition(":")
    uid, gid, login = _user(passwd, name or "0")
    if sep and group:
        gid = _group(groups, group)
        members: list[int] = []
    else:
        members = [
            int(row[2])
            for row in groups
            if len(row) > 3 and row[2].isdecimal() and login and login in row[3].split(",")
        ]
    # the main group too: without it, a process could lose a group that denies it access (CVE-2022-36109)
    additional = [gid, *members, *(_group(groups, one) for one in extra_groups)]
    return User(uid, gid, tuple(dict.fromkeys(additional)))


def _user(passwd: Sequence[Sequence[str]], name: str) -> tuple[int, int, str]:
    for row in passwd:
        if len(row) > 3 and row[2].isdecimal() and row[3].isdecimal() and name in {row[0], row[2]}:
            return int(row[2]), int(row[3]), row[0]
    if name.isdecimal() and int(name) <= MAX_ID:
        return int(name), 0, ""
    raise InvalidParameter(f"unable to find user {name}: no matching entries in passwd file")


def _group(groups: Sequence[Sequence[str]], name: str) -> int:
    for row in groups:
        if len(row) > 2 and row[2].isdecimal() and name in {row[0], row[2]}:
            return int(row[2])
    if name.isdecimal() and int(name) <= MAX_ID:
        return int(name)
    raise InvalidParameter(f"unable to find group {name}: no matching entries in group file")
