"""Captures out of archives into files of their own."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from pcaptools.errors import DamagedError, OutputError
from pcaptools.files.archive import SafeDirectory, components
from pcaptools.files.compression import compressor, recognise
from pcaptools.files.entries import PIECE, Archives, Entry, Nothing
from pcaptools.files.streams import HEAD, Prefixed, read_head

KINDS = {"gz": ("gzip", ".gz"), "zst": ("zstd", ".zst")}
"""What files can be compressed to: kind and suffix."""


class Extraction:
    """Writes captures below a directory, each to its own file.

    flat: without the directories of their names; a name that was used before gets a number. compress: a key of KINDS;
    what is compressed already stays as it is. dry: nothing is touched; `told` gets every name.
    """

    def __init__(
        self, directory: str, archives: Archives, *, flat: bool = False, compress: str | None = None,
        dry: bool = False, told: Callable[[str], None] = lambda path: None,
    ) -> None:  # fmt: skip
        self.extracted = 0
        self._archives = archives
        self._flat = flat
        self._compress = compress
        self._told = told
        self._used: set[str] = set()
        self._path = directory
        self._directory = None if dry else SafeDirectory(directory)

    def run(self) -> None:
        """Extract everything; what cannot be is a problem."""
        try:
            for entry in self._archives.entries():
                try:
                    self._extract(entry)
                except (DamagedError, OutputError) as error:
                    self._archives.problem(f"{entry.label}: {error}")
        finally:
            if self._directory:
                self._directory.close()

    def _extract(self, entry: Entry) -> None:
        head = entry.head()
        if self._archives.capture(Prefixed(head, Nothing()), entry.label) is None:
            return
        compress = self._compress and not recognise(head[:HEAD])
        name = self._name(entry.name, KINDS[self._compress][1] if self._compress and compress else "")
        if self._directory:
            self._copy(entry.stream, name, bool(compress))
        self.extracted += 1
        self._told(os.path.join(self._path, name))

    def _name(self, name: str, suffix: str) -> str:
        """The path below the directory. Raises OutputError for a name that leaves it."""
        parts = components(name)
        if not self._flat:
            return "/".join(parts) + suffix
        stem, dot, rest = parts[-1].partition(".")
        wanted, number = parts[-1] + suffix, 1
        while wanted in self._used:
            number += 1
            wanted = f"{stem}-{number}{dot}{rest}{suffix}" if stem else f"{parts[-1]}-{number}{suffix}"
        self._used.add(wanted)
        return wanted

    def _copy(self, stream: Any, name: str, compress: bool) -> None:
        """Write a member's bytes; an unfinished file is removed."""
        assert self._directory
        packer = compressor(KINDS[self._compress][0]) if compress and self._compress else None
        with self._directory.create(name) as file:
            try:
                while piece := read_head(stream, PIECE):
                    file.write(packer.compress(piece) if packer else piece)
                if packer:
                    file.write(packer.flush())
            except BaseException:
                self._directory.remove(name)
                raise
