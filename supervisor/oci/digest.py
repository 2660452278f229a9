"""Content digests, as the OCI image specification writes them: ``sha256:`` and 64 lower-case hex digits.

A digest is a plain text that has passed :func:`parse`; only sha256 is spoken. An image id is the digest of its config.
"""

from __future__ import annotations

import hashlib
import re

from supervisor.errors import InvalidArgument

ALGORITHM = "sha256"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
HEX_DIGITS = 64


def of(data: bytes) -> str:
    """The digest of ``data``."""
    return f"{ALGORITHM}:{hashlib.sha256(data).hexdigest()}"


def valid(text: str) -> bool:
    """Whether ``text`` is a digest."""
    return DIGEST.fullmatch(text) is not None


def parse(text: object, what: str = "digest") -> str:
    """``text`` if it is a digest.

    Raises:
        InvalidArgument: It is not; the message says which ``what`` it should have been.
    """
    if isinstance(text, str) and valid(text):
        return text
    message = f"cannot use {text!r:.100} as {what}: a digest is sha256: and 64 hex digits"
    raise InvalidArgument(message)


def encoded(digest: str) -> str:
    """The hex digits of ``digest``: what stands after the colon."""
    return digest.partition(":")[2]
