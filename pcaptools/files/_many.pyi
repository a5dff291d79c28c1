from collections.abc import Sequence

from pcaptools.core._flows import FlowTable

class ManyFiles:
    """Writes the sorted groups of a table, each to its file: made exclusively, or opened to append.

    parts: sorted, its stream held; names: paths, without zero bytes; groups, append: one for each name.
    """

    def __init__(
        self, parts: FlowTable, names: Sequence[bytes], groups: Sequence[int], append: Sequence[bool]
    ) -> None: ...
    def write(self, budget: int) -> bool:
        """Write on, about so many bytes. True: all is written. False: there is more, or `error` is set."""
    def retry(self) -> None:
        """Forget the error: the file that failed is tried again."""
    def abandon(self) -> bool:
        """Close the file that is not complete; one that got more is as before. True: a new one is to be removed."""
    done: int
    """Files that are complete: the one behind them is open, failed, or comes next."""
    error: int
    """errno of what failed, 0 if nothing did."""
