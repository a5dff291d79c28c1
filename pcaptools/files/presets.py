"""Options that are kept in a file: --load-opts."""

from __future__ import annotations

from collections.abc import Sequence

from pcaptools.errors import UsageError

NAME = "--load-opts"


def taken(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """The text of the file that --load-opts names, None without it, and the other arguments. Raises UsageError."""
    options = argv[: argv.index("--")] if "--" in argv else argv
    at = next((k for k, word in enumerate(options) if word.partition("=")[0] == NAME), None)
    if at is None:
        return None, list(argv)
    _, equals, path = argv[at].partition("=")
    if not equals and at + 1 == len(options):
        raise UsageError(f"{NAME} requires argument")
    following = at + 1 if equals else at + 2
    return _read(path if equals else argv[at + 1]), [*argv[:at], *argv[following:]]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"{NAME}: {path}: {error.strerror or error}") from None
