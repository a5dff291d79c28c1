"""Options that all our sending sockets have."""

from __future__ import annotations

import socket

_SO_SNDBUFFORCE = 32  # <asm/socket.h>
_SEND_BUFFER = 4 << 20  # bytes: several rings of a fast device, which reports what it has sent in batches


def widen(one: socket.socket) -> None:
    """A large send buffer: beyond the system's limit where that is allowed, else up to it."""
    try:
        one.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
    except PermissionError:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
