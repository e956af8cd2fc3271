"""The text of /etc/hosts and /etc/resolv.conf in a container.  Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

FALLBACK: Final = ("8.8.8.8", "8.8.4.4")
"""What dockerd gives a container whose host only has resolvers on its own loopback."""
_DEFAULT_HOSTS: Final = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)


def hosts_text(
    hostname: str, domainname: str, addresses: Iterable[str], extra: Iterable[str] = (), gateway: str = ""
) -> str:
    """Dockerd's default lines, ``--add-host`` entries (``host-gateway`` is the gateway), then the container itself."""
    lines = [f"{address}\t{names}" for address, names in _DEFAULT_HOSTS]
    for entry in extra:
        name, _, address = entry.partition(":")
        if address == "host-gateway":
            address = gateway
        if address:
            lines.append(f"{address}\t{name}")
    names = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    lines += [f"{address}\t{names}" for address in addresses if address and names]
    return "\n".join(lines) + "\n"


def resolv_text(
    host: str, nameservers: Sequence[str] = (), search: Sequence[str] = (), options: Sequence[str] = ()
) -> str:
    """The host's file without resolvers that a container cannot reach, or what was asked for instead."""
    own = [line.split() for line in host.splitlines() if line.strip() and not line.lstrip().startswith(("#", ";"))]
    servers = list(nameservers) or [
        words[1] for words in own if words[0] == "nameserver" and len(words) > 1 and _is_reachable(words[1])
    ]
    searched = list(search) or next((words[1:] for words in reversed(own) if words[0] in {"search", "domain"}), [])
    chosen = list(options) or [word for words in own if words[0] == "options" for word in words[1:]]
    lines = [f"nameserver {server}" for server in servers or FALLBACK]
    if searched and searched != ["."]:
        lines.append(f"search {' '.join(searched)}")
    if chosen:
        lines.append(f"options {' '.join(chosen)}")
    return "\n".join(lines) + "\n"


def _is_reachable(text: str) -> bool:
    """Whether a container reaches the resolver: it has no IPv6, and a loopback of its own."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address.version == 4 and not address.is_loopback
