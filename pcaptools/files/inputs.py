"""Several inputs, one after the other, and what their failures mean for the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pcaptools.core.batch import Batch
from pcaptools.core.pipeline import Account
from pcaptools.errors import DamagedError, InputError
from pcaptools.files.capture import Capture, open_capture


def captures(paths: Sequence[str], account: Account, *, close: bool = True) -> Iterator[Capture]:
    """Open the captures in turn; none at all means standard input. Each is closed when the next one is asked for.

    An input that cannot be read is a problem, unless no input can: then the last error is raised. Raises InputError.
    """
    error = None
    readable = False
    for path in paths or ["-"]:
        try:
            capture = open_capture(path)
        except InputError as unreadable:
            if error:
                account.problem(str(error))
            error = unreadable
            continue
        readable = True
        try:
            yield capture
        finally:
            if close:
                capture.close()
    if error and not readable:
        raise error
    if error:
        account.problem(str(error))


def sound(capture: Capture, account: Account, ahead: int = 0) -> Iterator[Batch]:
    """The batches of a capture, read up to so many ahead; damage behind them is a problem, not an exception."""
    try:
        yield from capture.ahead(ahead) if ahead else capture
    except DamagedError as damage:
        account.problem(str(damage))
