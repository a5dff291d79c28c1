"""What is to be looked for in the streams of sessions; engines/contents.py does it."""

from __future__ import annotations

from collections import namedtuple

REACH = 1 << 16
"""Bytes of a stream in which a TLS hello may begin."""


class Seek(namedtuple("_Seek", "http tls dns policy reach", defaults=(None, False, False, "first", REACH))):
    """http: header fields to keep (`http_messages.Wanted`), None: no HTTP. tls, dns: bool. policy: of
    `streams.POLICIES`. reach: bytes of a stream in which a TLS hello may begin."""

    __slots__ = ()
