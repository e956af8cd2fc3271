"""Names of images: Docker's reference grammar, without I/O.

People write familiar names (``busybox``); the engine keeps normalised ones (``docker.io/library/busybox:latest``).
Grammar, rules and error texts are those of the Docker distribution project's reference format, as dockerd answers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from silo.errors import InvalidParameter
from silo.ids import HEX64, Digest

DEFAULT_DOMAIN: Final = "docker.io"
LEGACY_DOMAIN: Final = "index.docker.io"
OFFICIAL: Final = "library/"
DEFAULT_TAG: Final = "latest"
MAX_NAME: Final = 255
"""Characters of a repository's path."""

_LABEL: Final = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN: Final = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?"
_COMPONENT: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH: Final = rf"{_COMPONENT}(?:/{_COMPONENT})*"
_TAG: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_ALGORITHM: Final = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*"
_DIGEST: Final = rf"{_ALGORITHM}:[0-9a-fA-F]{{32,}}"
_REFERENCE: Final = re.compile(
    rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_PATH})(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?"
)
_ONLY_TAG: Final = re.compile(_TAG)
_HEX_LENGTH: Final = {"sha256": 64, "sha384": 96, "sha512": 128}


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository with a tag, a digest, both or neither; ``str()`` is the normalised form.

    ``domain`` is empty in the rare name whose first part looks like a registry and cannot be one (``a_b.c/d``).
    """

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The repository, normalised: ``docker.io/library/busybox``."""
        return f"{self.domain}/{self.path}" if self.domain else self.path

    @property
    def familiar_name(self) -> str:
        """The repository as people write it: ``busybox``."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        rest = self.path.removeprefix(OFFICIAL)
        if "/" not in rest:
            return rest
        # library/a/b keeps its prefix and docker.io/a.b/c its registry: without, they would mean something else.
        return self.path if _split_domain(self.path)[0] == DEFAULT_DOMAIN else self.name

    @property
    def familiar(self) -> str:
        """The whole reference as people write it: ``busybox:latest``, ``busybox@sha256:...``."""
        return self.familiar_name + self._suffix()

    def with_default_tag(self) -> Reference:
        """The same, tagged ``latest`` when it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)

    def key(self) -> str:
        """Under what the reference is looked up: a digest wins over a tag, no tag means ``latest``."""
        return str(replace(self, tag="") if self.digest else self.with_default_tag())

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._suffix()


def parse_reference(text: str) -> Reference:
    """Read a familiar or a normalised name.  Raises InvalidParameter with dockerd's text."""
    if HEX64.fullmatch(text):
        raise InvalidParameter(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, rest = _split_domain(text)
    repository = rest.partition(":")[0]
    if repository.lower() != repository:
        raise InvalidParameter(f"invalid reference format: repository name ({repository}) must be lowercase")
    match = _REFERENCE.fullmatch(f"{domain}/{rest}")
    if match is None:
        raise InvalidParameter("invalid reference format")
    reference = Reference(match["domain"] or "", match["path"], match["tag"] or "", match["digest"] or "")
    if len(reference.path) > MAX_NAME:
        raise InvalidParameter(f"repository name must not be more than {MAX_NAME} characters")
    if reference.digest:
        check_digest(reference.digest)
    return reference


def parse_any(text: str) -> Reference | Digest:
    """Read a name, or a whole id with or without ``sha256:``.  Raises InvalidParameter with dockerd's text."""
    if HEX64.fullmatch(text):
        return Digest(f"sha256:{text}")
    if HEX64.fullmatch(text.removeprefix("sha256:")) and text.startswith("sha256:"):
        return Digest(text)
    return parse_reference(text)


def check_digest(text: str) -> Digest:
    """``text`` as a digest.  Raises InvalidParameter when it is none of a known algorithm."""
    algorithm, sep, value = text.partition(":")
    if not sep or not re.fullmatch(_ALGORITHM, algorithm):
        raise InvalidParameter("invalid checksum digest format")
    if algorithm not in _HEX_LENGTH:
        raise InvalidParameter("unsupported digest algorithm")
    if len(value) != _HEX_LENGTH[algorithm]:
        raise InvalidParameter("invalid checksum digest length")
    if not re.fullmatch(r"[0-9a-f]+", value):
        raise InvalidParameter("invalid checksum digest format")
    return Digest(text)


def tagged(repository: str, tag: str) -> Reference:
    """The reference of ``repository`` (which may have a tag) with ``tag``, else its own tag, else ``latest``.

    Raises InvalidParameter with dockerd's text; a digest is kept only when no tag replaces it.
    """
    reference = parse_reference(repository)
    if not tag:
        return reference.with_default_tag()
    if not _ONLY_TAG.fullmatch(tag):
        raise InvalidParameter("invalid tag format")
    return replace(reference, tag=tag, digest="")


def _split_domain(text: str) -> tuple[str, str]:
    """Split a name into registry and the rest: the first component is a registry only when it looks like one."""
    first, slash, rest = text.partition("/")
    if not slash:
        return DEFAULT_DOMAIN, OFFICIAL + text
    if first == LEGACY_DOMAIN:
        first = DEFAULT_DOMAIN
    elif first != "localhost" and not set(first) & set(".:") and first.lower() == first:
        return DEFAULT_DOMAIN, text
    if first == DEFAULT_DOMAIN and "/" not in rest:
        rest = OFFICIAL + rest
    return first, rest
