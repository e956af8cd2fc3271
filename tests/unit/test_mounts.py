"""Volumes, binds and tmpfs as one list, one per destination."""

from __future__ import annotations

import pytest

from silo.daemon.mounts import mount_points, parse_bind, parse_mount
from silo.errors import InvalidParameter
from silo.schema.engine import HostConfig, Mount, TmpfsOptions


def test_a_bind():
    point = parse_bind("/src:/dst:ro,rslave")
    assert (point.type, point.source, point.destination) == ("bind", "/src", "/dst")
    assert (point.rw, point.propagation) == (False, "rslave")


def test_a_named_and_an_anonymous_volume():
    assert parse_bind("data:/dst").name == "data"
    assert parse_bind("/dst").anonymous


@pytest.mark.parametrize("text", ["/a:b", "/a:/", "a:b:c:d", "/a:/b:often", "name:/b:rslave", "/a:"])
def test_what_is_no_bind(text):
    with pytest.raises(InvalidParameter):
        parse_bind(text)


@pytest.mark.parametrize(
    "mount",
    [
        Mount(type="bind", source="/does/not/exist/here", target="/x"),
        Mount(type="bind", source="relative", target="/x"),
        Mount(type="tmpfs", source="/x", target="/x"),
        Mount(type="npipe", target="/x"),
        Mount(type="volume", target=""),
    ],
)
def test_what_is_no_mount(mount):
    with pytest.raises(InvalidParameter, match="invalid mount config"):
        parse_mount(mount)


def test_tmpfs_options():
    point = parse_mount(Mount(type="tmpfs", target="/t", tmpfs_options=TmpfsOptions(size_bytes=4096, mode=0o1777)))
    assert point.options == ["size=4096", "mode=1777"]


def test_a_users_mount_replaces_the_images_volume_and_parents_come_first():
    points = mount_points(HostConfig(binds=["/h:/data", "/h:/data/sub"]), ["/data", "/other"])
    assert [(point.destination, point.type) for point in points] == [
        ("/data", "bind"),
        ("/data/sub", "bind"),
        ("/other", "volume"),
    ]


def test_two_of_the_users_on_one_place_are_refused():
    with pytest.raises(InvalidParameter, match="Duplicate mount point: /d"):
        mount_points(HostConfig(binds=["/a:/d", "/b:/d"]), [])
