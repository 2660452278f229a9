"""The names of images: Docker's reference grammar (distribution/reference).

Words:
    familiar: What people type and read, ``web`` or ``lab/web:2``.
    canonical: The whole of it, ``docker.io/library/web:latest``.
    repository: The canonical name without tag and digest, ``docker.io/library/web``.

A text of 64 hex digits is never a name: it is an id. Shorter ones may be either; who resolves tries names first.
"""

from __future__ import annotations

import fnmatch
import re

import attrs

from supervisor.errors import InvalidArgument
from supervisor.oci import digest as digests

DEFAULT_DOMAIN = "docker.io"
LEGACY_DEFAULT_DOMAIN = "index.docker.io"
OFFICIAL = "library/"
DEFAULT_TAG = "latest"
REPOSITORY_CHARACTERS_MAX = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DOMAIN_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_ID = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")


@attrs.frozen(order=True)
class Reference:
    """A name in canonical parts; ``tag`` and ``digest`` are empty when not said."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """The canonical name without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """The repository as people write it: without what goes without saying."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        short = self.path.removeprefix(OFFICIAL)
        familiar = self.path if "/" in short else short
        # ``docker.io/a.b/c`` without its host would be c on the host a.b.
        return familiar if _split_domain(familiar) == (self.domain, self.path) else self.repository

    @property
    def familiar(self) -> str:
        """As people write it, with the tag and the digest if there are."""
        return self.familiar_repository + self._tail

    @property
    def canonical(self) -> str:
        """In full."""
        return self.repository + self._tail

    @property
    def tagged(self) -> Reference:
        """The same, with ``latest`` for a tag if neither tag nor digest was said."""
        return self if self.tag or self.digest else attrs.evolve(self, tag=DEFAULT_TAG)

    def is_like(self, pattern: str) -> bool:
        """Whether Docker's pattern fits it as people write it, with or without tag; ``*`` stays within a slash."""
        return any(
            text.count("/") == pattern.count("/") and fnmatch.fnmatchcase(text, pattern)
            for text in (self.familiar, self.familiar_repository)
        )

    @property
    def _tail(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """The reference that ``text``, familiar or canonical, names.

    Raises:
        InvalidArgument: It is no reference.
    """
    name, at, digest = text.partition("@")
    if at and not digests.valid(digest):
        raise _invalid(text, "what follows @ is not a digest (sha256: and 64 hex digits)")
    name, tag = _split_tag(name)
    if tag is not None and not _TAG.fullmatch(tag):
        raise _invalid(text, f"{tag!r:.140} is not a tag")
    if re.fullmatch(r"[0-9a-f]{64}", name):
        raise _invalid(text, "64 hex digits are an image id, not a name")
    domain, path = _split_domain(name)
    if not _DOMAIN.fullmatch(domain):
        raise _invalid(text, f"{domain!r:.300} is not a host name")
    if path != path.lower():
        raise _invalid(text, "repository name must be lowercase")
    if not _PATH.fullmatch(path):
        raise _invalid(text, f"{path!r:.300} is not a repository name")
    if len(domain) + 1 + len(path) > REPOSITORY_CHARACTERS_MAX:
        raise _invalid(text, f"the name is longer than {REPOSITORY_CHARACTERS_MAX} characters")
    return Reference(domain, path, tag or "", digest)


def id_prefix(text: str) -> str:
    """The hex digits if ``text`` may be an image id or its beginning (with or without ``sha256:``), else nothing."""
    match = _ID.fullmatch(text)
    return match.group(1) if match else ""


def short_id(image_id: str) -> str:
    """The twelve hex digits Docker shows."""
    return digests.encoded(image_id)[:12]


def _split_tag(name: str) -> tuple[str, str | None]:
    """Cut off a tag: what follows a colon behind the last slash (a colon before it belongs to a port)."""
    slash = name.rfind("/")
    colon = name.find(":", slash + 1)
    return (name, None) if colon < 0 else (name[:colon], name[colon + 1 :])


def _split_domain(name: str) -> tuple[str, str]:
    """Tell a registry's host from the first part of a path, as Docker does: it has a dot, a port, capitals, or is localhost."""
    first, slash, rest = name.partition("/")
    hostlike = "." in first or ":" in first or first == "localhost" or first.lower() != first
    domain, path = (first, rest) if slash and hostlike else (DEFAULT_DOMAIN, name)
    if domain == LEGACY_DEFAULT_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = OFFICIAL + path
    return domain, path


def _invalid(text: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"invalid reference format: cannot use {text!r:.400}: {why}")
