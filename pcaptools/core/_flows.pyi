from collections.abc import Iterator
from typing import Any

from typing_extensions import Buffer

from pcaptools.core._core import NativeBatch

class FlowTable:
    """Which flow each packet of a stream belongs to, and where the packets are.

    Rows are flows in order of their first packet; row 0 is the packets without one. A row may turn out to be part of
    another (`resolved`). Groups are files: group 0 is the packets without a flow, without grouping a flow's group is
    its own row or that of its root (`relate`).

    by, grouping: enum pt_by and pt_grouping of csrc/flows.h; limit: packets, bytes or ns; timeouts: ns, 0 none; tells:
    bits of enum pt_telling; keep: remember where packets are; seed: of the hash.
    """

    def __init__(
        self,
        *,
        by: int,
        grouping: int,
        limit: int = 0,
        files: int = 0,
        inner: bool = False,
        ignore_vlan: bool = False,
        own_icmp_errors: bool = False,
        timeout: int = 0,
        open_timeout: int = 0,
        tells: int = 0,
        keep: bool = True,
        pcapng: bool = False,
        seed: int = 0,
    ) -> None: ...
    def index(self, batch: NativeBatch) -> None:
        """Take the next batch of the stream; its bytes are not kept. Packets marked to be dropped are left out."""
    def told(self, batch: NativeBatch) -> list[tuple[int, int, int, int, bool, int, bytes]]:
        """Of the batch indexed last, the packets that tell of other flows: (number of the packet, row, enum pt_telling,
        end of the key that sent it, TCP, time in ns, payload)."""
    tells: int
    pcapng: bool
    packets: int
    filtered: int
    """Packets left out because they were marked."""
    stream: int
    """Bytes indexed."""
    flows: int
    """Rows, the one without a flow included."""
    groups: int
    places: int
    """Packets whose places are remembered."""
    other_blocks: int
    def ordinal(self, flow: int) -> int:
        """Number of the flow's first packet, from 0."""
    def row(self, flow: int) -> tuple[Any, ...]:
        """The fields of engines.flows.Row."""
    def is_merged(self, flow: int) -> bool: ...
    def resolved(self, flow: int) -> int: ...
    def order(self) -> list[int]:
        """The rows that are not part of others, in order of first packets."""
    def text(self, start: int, size: int, left_out: Buffer, protocols: list[bytes]) -> tuple[str, int, int | None]:
        """The flows from number start + 1 on as lines, up to `size` bytes or to one that needs other words. left_out:
        a byte for each group, not 0: not listed; may be short. protocols: 256 names of at most 23 bytes. Returns
        (lines, number of the last flow that was looked at, row of the one without a line or None)."""
    def group(self, flow: int) -> int: ...
    def owners(self) -> list[int]:
        """The row of every packet whose place is remembered."""
    def relate(self, flow: int, cause: int, relation: int) -> bool:
        """`cause` caused `flow`: one file. False when they share one already."""
    def assign(self, finish: bool) -> None:
        """Give every flow its group; finish: also those that wait for a first fragment."""
    def firsts(self, start: int) -> list[tuple[int, int]]:
        """(row, group) of the rows from `start` on where a group has one for the first time among these."""
    def packets_per_group(self) -> tuple[list[int], list[bool]]:
        """Packets of every group, and whether a TCP connection from SYN to FIN or RST is in it."""
    def settled(self) -> int:
        """Places before the first one whose flow is not known yet."""
    def forget_datagrams(self, patience: int) -> None:
        """First fragments are not waited for longer than `patience` ns of capture time."""
    def hold(self, stream: Buffer, at: int) -> None:
        """The bytes of the stream from offset `at` on; held until released."""
    def release(self) -> None: ...
    def sort(self, n: int) -> list[int]:
        """Order the first n places by group. Returns the groups that have any."""
    def span(self, n: int) -> tuple[int, int]:
        """Offset behind the last byte of the first n places; and where place n begins."""
    def discard(self, n: int) -> None:
        """Forget the first n places: they are written."""
    def count(self, group: int) -> int:
        """Packets of a sorted group."""
    def size(self, group: int) -> int:
        """Bytes of the file of a sorted group."""
    def pieces(self, group: int, append: bool, room: int) -> Iterator[memoryview]:
        """The file of a sorted group, in pieces of at most `room` bytes; append: without the file header."""
    def capsule(self) -> object:
        """The native state, for files/_many.pyx. Valid as long as this object."""
