"""Captures for the benchmarks, as pcapgen makes them: classic pcap, microseconds, Ethernet, nothing cut short.

The same for the same seed. One end of each flow is in 10.1.0.0/16, so that address maps match.

    captures.py large|small|paced FILE [--packets N] [--seed N]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

PCAPGEN = Path(__file__).resolve().parent.parent / "bin" / "pcapgen"
CLIENT_MAC = bytes.fromhex("020000000001")
SERVER_MAC = bytes.fromhex("0200000000fe")
FLOW_PACKETS = 60


def large(packets: int = 1_000_000) -> list[str]:
    """A mix of 650 bytes a packet, one flow in ten IPv6; one packet every 6 us on average."""
    flows = max(packets // FLOW_PACKETS, 1)
    return [*_mix(packets, flows), f"--duration={packets * 6}e-6", "--ipv6-share=10", "--vlan-share=0"]


def small(packets: int = 1_500_000) -> list[str]:
    """SYNs of 60 bytes, one every microsecond."""
    ends = ["--src=10.1.0.0/16", "--dst=198.18.0.1"]
    return ["syn-flood", *ends, "--pad", "--pps=1000000", f"--packets={packets}"]


def paced(packets: int = 100_000) -> list[str]:
    """A mix over exactly 5 s, with irregular gaps."""
    return [*_mix(packets, max(packets // FLOW_PACKETS, 1)), "--duration=5", "--ipv6-share=0", "--vlan-share=0"]


def _mix(packets: int, flows: int) -> list[str]:
    return ["mix", f"--packets={packets}", f"--flows={flows}"]


def main() -> int:
    """Write one capture, as the command line says; returns the exit status."""
    kinds = {kind.__name__: kind for kind in (large, small, paced)}
    parser = argparse.ArgumentParser(description="Write a capture for the benchmarks.")
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("file")
    parser.add_argument("--packets", type=int, help="how many; 1000000, 1500000 or 100000 when not given")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    kind = kinds[args.kind]
    wanted = kind() if args.packets is None else kind(args.packets)
    macs = [f"--enet-smac={CLIENT_MAC.hex(':')}", f"--enet-dmac={SERVER_MAC.hex(':')}"]
    return subprocess.call([sys.executable, str(PCAPGEN), *wanted, *macs, f"--seed={args.seed}", "-w", args.file])


if __name__ == "__main__":
    sys.exit(main())
