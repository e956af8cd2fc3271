"""Operating system and processor of images and of this host."""

from __future__ import annotations

import platform as host
from dataclasses import dataclass
from typing import Final

from silo.errors import InvalidParameter

_ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "i386": "386",
    "i686": "386",
    "aarch64": "arm64",
    "armhf": "arm",
    "armv7l": "arm",
    "armel": "arm",
}
_VARIANTS: Final = {"armhf": "v7", "armv7l": "v7", "armel": "v6"}
_KNOWN_OS: Final = frozenset({"linux", "windows", "darwin", "freebsd"})
_KNOWN_ARCHITECTURE: Final = frozenset(
    {"386", "amd64", "arm", "arm64", "loong64", "mips64", "mips64le", "ppc64", "ppc64le", "riscv64", "s390x"}
)


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on; an empty part says nothing."""

    os: str
    architecture: str
    variant: str = ""

    def runs(self, other: Platform) -> bool:
        """Whether this host runs images made for ``other``."""
        if (self.os, self.architecture) != (other.os, other.architecture):
            return False
        return not (self.variant and other.variant) or self.variant == other.variant or self.architecture == "arm64"

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def host_platform() -> Platform:
    """What this host runs."""
    return _normalised("linux", host.machine().lower(), "")


def parse_platform(text: str) -> Platform:
    """``os[/architecture[/variant]]``; what is left out is this host's.  Raises InvalidParameter, as dockerd does."""
    parts = [part.lower() for part in text.split("/")]
    here = host_platform()
    if len(parts) == 1:
        if parts[0] in _KNOWN_OS:
            return Platform(parts[0], here.architecture, here.variant)
        found = _normalised("linux", parts[0], "")
        if found.architecture in _KNOWN_ARCHITECTURE:
            return found
        raise InvalidParameter(f'"{text}": unknown operating system or architecture: invalid argument')
    if len(parts) > 3 or not all(parts):
        raise InvalidParameter(f'"{text}": cannot parse platform specifier: invalid argument')
    return _normalised(parts[0], parts[1], parts[2] if len(parts) == 3 else "")


def _normalised(system: str, architecture: str, variant: str) -> Platform:
    variant = variant or _VARIANTS.get(architecture, "")
    architecture = _ARCHITECTURES.get(architecture, architecture)
    if (architecture, variant) in {("arm64", "v8"), ("arm64", "8"), ("amd64", "v1")}:
        variant = ""
    return Platform(system, architecture, variant)
