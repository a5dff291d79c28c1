"""The main job on one machine: a tarball of captures, edited on the way, onto a wire, on time.

Runs itself in a private network namespace (no root needed where user namespaces are allowed) with a veth pair: the
pipeline sends into one end, eth0, and the kernel's own timestamps are read at the other. No packet leaves it.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
from pathlib import Path

PACKETS, SECONDS = 3000, 3
MAP = "10.1.0.0/16:192.168.0.0/16"
MAC = "02:00:00:00:00:02"
EDITS = f"--srcipmap {MAP} --dstipmap {MAP} --enet-dmac {MAC} --fixcsum"
PIPELINE = f"tarpcap x dump.tgz | pcaprewrite {EDITS} | pcapreplay -i eth0"
SO_TIMESTAMPNS, ETH_P_ALL, PACKET_OUTGOING = 35, 3, 4

Frame = tuple[int, bytes]
"""When the kernel saw it, ns, and its bytes."""


def main() -> int:
    """Enter a namespace, unless this is it already."""
    if sys.argv[1:] == ["inside"]:
        return inside()
    if shutil.which("unshare") is None:
        print("demo: needs unshare (package util-linux) and ip (package iproute2)", file=sys.stderr)
        return 2
    status = subprocess.call(["unshare", "-rn", sys.executable, __file__, "inside"])
    if status:
        print("demo: did not succeed; where user namespaces are switched off, run it as root", file=sys.stderr)
    return status


def inside() -> int:
    """Make the wire, run the pipeline, compare what arrived with what was recorded."""
    for command in ("add eth0 type veth peer name eth1", "set eth0 addrgenmode none", "set eth1 addrgenmode none",
                    "set eth0 arp off up", "set eth1 arp off up"):  # fmt: skip
        subprocess.run(["ip", "link", *command.split()], check=True)
    with tempfile.TemporaryDirectory(prefix="pcaptools-demo-") as directory:
        os.chdir(directory)
        make_archive()
        receiver = Receiver("eth1")
        print(f"\n$ {PIPELINE}")
        status = subprocess.call(PIPELINE, shell=True)
        frames = receiver.stop()
        return status or judge(frames)


def make_archive() -> None:
    """dump.tgz: one recording in three captures of different formats and compressions, and a text file."""
    mix = f"pcapgen mix --packets={PACKETS} --flows=60 --duration={SECONDS} --ipv6-share=0 --vlan-share=0 -w all.pcap"
    subprocess.run(mix.split(), check=True)
    Path("notes.txt").write_text("not a capture\n")
    third = PACKETS // 3
    parts: list[tuple[str, list[str]]] = [
        ("a.pcap.gz", []),
        ("b.pcapng", ["--format", "pcapng"]),
        ("c.pcap.zst", ["--format", "nspcap"]),
    ]
    for number, (name, options) in enumerate(parts):
        cut("all.pcap", "part.pcap", number * third, (number + 1) * third)
        subprocess.run(["pcaprewrite", *options, "-w", name, "part.pcap"], check=True)
    with tarfile.open("dump.tgz", "w:gz") as archive:
        for name in ("a.pcap.gz", "notes.txt", "b.pcapng", "c.pcap.zst"):
            archive.add(name)
    print(f"dump.tgz: a.pcap.gz, b.pcapng, c.pcap.zst and notes.txt: {PACKETS} packets, recorded over {SECONDS} s")


def cut(path: str, part: str, first: int, stop: int) -> None:
    """Copy packets first to stop of a classic capture."""
    data = Path(path).read_bytes()
    offsets, at = [], 24
    while at < len(data):
        offsets.append(at)
        at += 16 + struct.unpack_from("<I", data, at + 8)[0]
    offsets.append(at)
    Path(part).write_bytes(data[:24] + data[offsets[first] : offsets[stop]])


class Receiver:
    """Collects what arrives at a device, with the kernel's timestamps."""

    def __init__(self, device: str) -> None:
        self.frames: list[Frame] = []
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.bind((device, ETH_P_ALL))
        self._socket.settimeout(0.5)
        self._stop = False
        self._thread = threading.Thread(target=self._receive)
        self._thread.start()

    def _receive(self) -> None:
        while True:
            try:
                data, ancillary, _, address = self._socket.recvmsg(65536, 64)
            except TimeoutError:
                if self._stop:
                    return
                continue
            if address[2] != PACKET_OUTGOING:
                seconds, fraction = struct.unpack("qq", ancillary[0][2][:16])
                self.frames.append((seconds * 1_000_000_000 + fraction, data))

    def stop(self) -> list[Frame]:
        """Wait until nothing comes any more."""
        self._stop = True
        self._thread.join()
        return self.frames


def judge(frames: list[Frame]) -> int:
    """Say what arrived, and how exactly on time; 0 when all of it is right."""
    from pcaptools.core.pipeline import Account
    from pcaptools.files.capture import open_capture
    from pcaptools.files.inputs import sound

    recorded = [
        record.time for batch in sound(open_capture("all.pcap"), Account(print, print)) for record in batch.records()
    ]
    with open("arrived.pcap", "wb") as file:
        file.write(struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
        for time, data in frames:
            file.write(struct.pack("=IIII", *divmod(time, 1_000_000_000), len(data), len(data)) + data)
    wrong = right = mapped = 0
    for batch in open_capture("arrived.pcap"):
        for counts in batch.sums(False):
            right, wrong = right + counts[0], wrong + counts[1]
        mapped += sum(bytes([192, 168]) in (bytes(p[26:28]), bytes(p[30:32])) for p in batch.packets())
    print(f"arrived:  {len(frames)} of {len(recorded)} packets; {mapped} with an address mapped to 192.168.0.0/16")
    print(f"checksums: {right} right, {wrong} wrong")
    if len(frames) == len(recorded):
        tell_errors(
            [(arrived - frames[0][0]) - (due - recorded[0]) for (arrived, _), due in zip(frames, recorded, strict=True)]
        )
    return int(wrong > 0 or len(frames) != len(recorded) or mapped != len(recorded))


def tell_errors(errors: list[int]) -> None:
    """How far from the recorded schedule the packets arrived."""
    late = sorted(abs(error) for error in errors)
    median, most, largest = (late[int(part * (len(late) - 1))] / 1000 for part in (0.5, 0.99, 1))
    print(f"schedule, as the receiving kernel saw it: off by {median:.0f} us (median), {most:.0f} us (p99), "
          f"{largest:.0f} us (largest); last packet {errors[-1] / 1000:+.0f} us")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
