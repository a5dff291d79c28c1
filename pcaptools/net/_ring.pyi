from typing_extensions import Buffer

class Blocks:
    """The blocks of a packet socket's ring (TPACKET_V3), as they lie in memory.

    memory: all of them, writable; kept until `close`. block_size: bytes. snaplen: bytes of a packet at most. cooked:
    frames begin with the network header, records with that of LINUX_SLL2. once: frames are of several devices; each
    direction of a conversation is taken from one of them. tagged: frames are of Ethernet; VLAN tags are put back.
    """

    def __init__(
        self,
        memory: Buffer,
        block_size: int,
        *,
        snaplen: int,
        cooked: bool = False,
        once: bool = False,
        tagged: bool = False,
    ) -> None:
        """Raises ValueError."""
    def take(self, room: Buffer) -> int:
        """Write the frames that are there as records of a nanosecond pcap; returns how many bytes.

        room: `least` bytes or more. Frames that find none in it are taken by the next call.
        """
    def close(self) -> None:
        """Let go of the memory."""
    @property
    def least(self) -> int:
        """Bytes of room that the largest frame may take."""
    @property
    def again(self) -> int:
        """Packets left out because they had been taken at another device."""
