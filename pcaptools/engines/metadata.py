"""What a pcapng says beside its packets: addresses mapped, comments, names and secrets dropped, a comment added.

Specification: draft-ietf-opsawg-pcapng sections 3.5 (options), 4.2 (interfaces), 4.5 (names), 4.7 (secrets).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from pcaptools.core import _edits
from pcaptools.core._info import other_blocks, packet_options
from pcaptools.core.batch import Batch
from pcaptools.core.pipeline import Transform

SECTION, INTERFACE, NAMES, STATISTICS, SECRETS = 0x0A0D0D0A, 1, 4, 5, 10
_FIXED = {SECTION: 24, INTERFACE: 16, STATISTICS: 20}
COMMENT = 1
_TELLING = {SECTION: {COMMENT}, INTERFACE: {COMMENT, 2, 3, 7, 11}, STATISTICS: {COMMENT}}
"""Options that name a host, an interface or an address in text."""

Mapper = Callable[[bytes], bytes]


class Metadata(Transform):
    """map_address: for addresses of 4, 16 or 6 bytes, or None. private: drop what may tell who captured whom."""

    def __init__(
        self,
        *,
        map_address: Mapper | None = None,
        private: bool = False,
        strip_comments: bool = False,
        discard_secrets: bool = False,
        comment: str | None = None,
    ) -> None:
        self._map = map_address
        self._private = private
        self._strip = strip_comments or private
        self._secrets = discard_secrets or private
        self._comment = comment

    def feed(self, batch: Batch) -> Iterable[Batch]:
        if batch.pcapng:
            order = "<" if (struct.pack("=H", 1) == b"\1\0") != batch.swapped else ">"
            if self._strip:
                self._strip_packets(batch, order)
            for kind, start, total in reversed(other_blocks(batch)):
                old = bytes(batch.view()[start : start + total])
                new = self._block(kind, old, order)
                if new != old:
                    batch.forget_section_length()
                    if kind == SECTION:
                        new = new[:16] + b"\xff" * 8 + new[24:]
                    _edits.splice(batch, start, total, new)
        yield batch

    def _strip_packets(self, batch: Batch, order: str) -> None:
        """Take comments out of packet blocks, which keep their length: zero bytes end the options early."""
        view = batch.view()
        for _, start, end in packet_options(batch):
            kept = b"".join(
                option for code, option in _options(bytes(view[start:end]), order) if code not in (0, COMMENT)
            )
            view[start:end] = kept.ljust(end - start, b"\0")

    def _block(self, kind: int, block: bytes, order: str) -> bytes:
        """A block as it shall be; nothing when it shall not be."""
        if kind == SECRETS and self._secrets:
            return b""
        if kind == NAMES:
            return self._names(block, order)
        if kind not in _FIXED:
            return b"" if self._private else block
        fixed = _FIXED[kind]
        dropped = {COMMENT} if self._strip else set()
        if self._private:
            dropped |= _TELLING[kind]
        options = [(code, text) for code, text in _options(block[fixed:-4], order) if code and code not in dropped]
        if kind == INTERFACE and self._map:
            options = [(code, self._interface_option(code, text, order)) for code, text in options]
        if kind == SECTION and self._comment is not None:
            options.insert(0, (COMMENT, _option(COMMENT, self._comment.encode(errors="surrogateescape"), order)))
        if options == [(code, text) for code, text in _options(block[fixed:-4], order) if code]:
            return block
        body = b"".join(text for _, text in options) + (_option(0, b"", order) if options else b"")
        return _sized(block[:fixed] + body, order)

    def _interface_option(self, code: int, option: bytes, order: str) -> bytes:
        size = {4: 4, 5: 16, 6: 6}.get(code)
        assert self._map
        if size is None or len(option) < 4 + size:
            return option
        return option[:4] + self._map(option[4 : 4 + size]) + option[4 + size :]

    def _names(self, block: bytes, order: str) -> bytes:
        """Addresses mapped, names dropped where that is wanted: then nothing is left to say."""
        if self._private:
            return b""
        if not self._map:
            return block
        out, at, end = block[:8], 8, len(block) - 4
        while at + 4 <= end:
            kind, length = struct.unpack(order + "HH", block[at : at + 4])
            size = 4 + (length + 3 & ~3)
            size_of_address = {1: 4, 2: 16}.get(kind, 0)
            record = block[at : at + size]
            if size_of_address and length >= size_of_address and at + size <= end:
                record = record[:4] + self._map(record[4 : 4 + size_of_address]) + record[4 + size_of_address :]
            out += record
            at += size
            if kind == 0:
                break
        return out + block[at:]


def _options(body: bytes, order: str) -> list[tuple[int, bytes]]:
    """(code, whole option) of each, up to the end or to what is damaged."""
    found = []
    at = 0
    while at + 4 <= len(body):
        code, length = struct.unpack(order + "HH", body[at : at + 4])
        size = 4 + (length + 3 & ~3)
        if at + size > len(body):
            break
        found.append((code, body[at : at + size]))
        if code == 0:
            break
        at += size
    return found


def _option(code: int, value: bytes, order: str) -> bytes:
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def _sized(start: bytes, order: str) -> bytes:
    """A block with its lengths, from what stands in front of the last one."""
    length = struct.pack(order + "I", len(start) + 4)
    return start[:4] + length + start[8:] + length
