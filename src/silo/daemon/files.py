"""The files that a container gets from the engine: hostname, hosts and resolv.conf, bind-mounted into it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from silo.daemon.container import Container
from silo.network.model import Sandbox
from silo.network.resolvconf import hosts_text, resolv_text

HOST_RESOLV_CONF: Final = Path("/etc/resolv.conf")
NAMES: Final = ("hostname", "hosts", "resolv.conf")
