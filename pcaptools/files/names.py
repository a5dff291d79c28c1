"""Choosing members of archives by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase


def is_glob(text: str) -> bool:
    """Whether a name has wildcards: `*`, `?` or `[`."""
    return any(letter in text for letter in "*?[")


def matches(name: str, pattern: str) -> bool:
    """Whether a wildcard pattern fits a name or a directory above it; one without a slash fits any component.

    `*` and `?` fit slashes too, as with tar.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if "/" not in pattern:
        return any(fnmatchcase(part, pattern) for part in parts)
    pattern = pattern.removeprefix("./").rstrip("/")
    return any(fnmatchcase("/".join(parts[:count]), pattern) for count in range(len(parts), 0, -1))


class Choice:
    """Which members are wanted: all; or those that fit a pattern and the regular expression, and are not excluded."""

    def __init__(self, patterns: Sequence[str] = (), regexp: str | None = None, excluded: Sequence[str] = ()) -> None:
        """regexp is searched for in the whole name. Raises ValueError if it is none."""
        self._patterns = patterns
        self._excluded = excluded
        try:
            self._regexp = re.compile(regexp or "")
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"'{regexp}' is not a regular expression: {error}") from None

    def __call__(self, name: str) -> bool:
        if self._patterns and not any(matches(name, pattern) for pattern in self._patterns):
            return False
        return bool(self._regexp.search(name)) and not any(matches(name, pattern) for pattern in self._excluded)
