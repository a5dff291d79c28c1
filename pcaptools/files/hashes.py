"""Hashing a file's raw bytes on the way through, in the same pass that reads its packets."""

from __future__ import annotations

from typing import Any

from pcaptools.files.streams import PIPE_SIZE

ALGORITHMS = ("sha256", "ripemd160", "sha1")

SHARED = 1 << 16
"""Bytes from which on it pays to let two processors hash one piece."""


class Observed:
    """A raw stream that counts, and when asked to hashes, the bytes that it gives: those of the file as stored."""

    def __init__(self, raw: Any, hashes: bool) -> None:
        self._raw = raw
        self._hashes: dict[str, Any] = _hashes() if hashes else {}
        self._pool: Any = None
        self.size = 0

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`; 0 at the end."""
        got = self._raw.readinto(buffer) or 0
        self.size += got
        if self._hashes and got:
            self._hash(memoryview(buffer)[:got])
        return got

    def _hash(self, piece: memoryview) -> None:
        """The slowest hash, RIPEMD-160, beside the others."""
        others = [value for name, value in self._hashes.items() if name != "ripemd160"]
        slowest = self._hashes.get("ripemd160")
        waiting = None
        if slowest and len(piece) >= SHARED:
            self._pool = self._pool or _pool()
            waiting = self._pool.submit(slowest.update, piece)
        elif slowest:
            slowest.update(piece)
        for other in others:
            other.update(piece)
        if waiting:
            waiting.result()

    def drain(self) -> None:
        """Read what is left, so that size and hashes are those of the whole."""
        rest = memoryview(bytearray(PIPE_SIZE))
        while self.readinto(rest):
            pass

    def digests(self) -> dict[str, str | None]:
        """Hexadecimal digests by algorithm; None where the platform lacks it."""
        return {name: self._hashes[name].hexdigest() if name in self._hashes else None for name in ALGORITHMS}

    def close(self) -> None:
        """Close the stream below."""
        if self._pool:
            self._pool.shutdown()
        close = getattr(self._raw, "close", None)
        if close:
            close()


def _hashes() -> dict[str, Any]:
    import hashlib

    found = {}
    for name in ALGORITHMS:
        try:
            found[name] = hashlib.new(name, usedforsecurity=False)
        except ValueError:  # OpenSSL was built without it
            continue
    return found


def _pool() -> Any:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(1)
