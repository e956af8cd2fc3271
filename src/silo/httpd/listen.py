"""Listening sockets: unix sockets of any path length, and TCP on the loopback only."""

from __future__ import annotations

import contextlib
import grp
import ipaddress
import os
import socket
from collections.abc import Generator
from pathlib import Path
from urllib.parse import urlsplit

from silo.errors import Conflict, Forbidden, InvalidParameter
from silo.httpd.sockets import Connection


@contextlib.contextmanager
def short_path(path: Path) -> Generator[str]:
    """``path`` as a name below 108 bytes, by way of a descriptor of its directory (sun_path is that short)."""
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)


def open_host(host: str, *, group: str = "docker") -> socket.socket:
    """Listen on ``unix:///path`` or ``tcp://127.0.0.1:port``.  Raises InvalidParameter, Forbidden, Conflict."""
    url = urlsplit(host)
    if url.scheme == "unix" and url.path:
        return open_unix(Path(url.path), group=group)
    if url.scheme in {"tcp", "http"} and url.hostname:
        return open_tcp(url.hostname, url.port or 2375)
    raise InvalidParameter(f"unable to parse docker host `{host}`: use unix:///path or tcp://127.0.0.1:port")


def open_unix(path: Path, *, mode: int = 0o660, group: str = "docker") -> socket.socket:
    """Listen on a unix socket, root:``group`` where the group exists.  A socket nobody listens on is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with short_path(path) as name:
            if _answers(name):
                raise Conflict(f"listen on unix://{path}: another process listens there")
            path.unlink(missing_ok=True)
            old = os.umask(0o777 & ~mode)
            try:
                sock.bind(name)
            finally:
                os.umask(old)
        with contextlib.suppress(KeyError):
            os.chown(path, 0, grp.getgrnam(group).gr_gid)
        sock.listen(1024)
        return sock
    except BaseException:
        sock.close()
        raise


def _answers(name: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(name)
        except OSError:
            return False
        return True


def open_tcp(host: str, port: int) -> socket.socket:
    """Listen on a loopback address.  Raises Forbidden for any other: there is no TLS here."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise InvalidParameter(f"listen on tcp://{host}:{port}: not an IP address") from None
    if not address.is_loopback:
        raise Forbidden(f"listen on tcp://{host}:{port}: plain TCP beyond the loopback is refused")
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((str(address), port))
        sock.listen(1024)
        return sock
    except BaseException:
        sock.close()
        raise


def connect_unix(path: Path) -> Connection:
    """Connect to a unix socket of any path length.  Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with short_path(path) as name:
            sock.connect(name)  # never waits: a full backlog is EAGAIN
        return Connection(sock)
    except BaseException:
        sock.close()
        raise
