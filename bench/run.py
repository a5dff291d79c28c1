"""Measure the commands against their peers: whole processes, in turn, medians, as ratios from one run.

Prints a table and writes results.json beside this file. The commands are those beside the Python that runs this.
Exit status 1 when something could not be measured; a missed target is a result, not a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path

from measure import Failed, Missing, Row, Run, alternate, command, medians, program, run, table, unwind_on_signals

HERE = Path(__file__).resolve().parent
MEMORY = Path("/dev/shm")
NEEDED_BYTES = 4 << 30
PACKETS = {"large": 1_000_000, "small": 1_500_000, "paced": 100_000}
MEMBERS, MEMBER_PACKETS = 8, 64_000
STARTS_PER_ROUND = 20
WALL, USER = attrgetter("wall"), attrgetter("user")
EDITS = [
    "--srcipmap=10.1.0.0/16:192.168.0.0/16",
    "--dstipmap=10.1.0.0/16:192.168.0.0/16",
    "--enet-dmac=02:00:00:00:00:02",
    "--fixcsum",
]


class Bench:
    """One run of the benchmark: its parameters, its working files, what it found and what it could not do."""

    def __init__(self, directory: str, binaries: str, rounds: int, scale: float) -> None:
        self.directory = Path(directory)
        self.binaries = binaries
        self.rounds = rounds
        self.scale = scale
        self.rows: list[Row] = []
        self.problems: list[str] = []

    def ours(self, name: str) -> list[str]:
        """How a command under test begins. Raises Missing."""
        return command(self.binaries, name)

    def capture(self, kind: str, packets: int | None = None, seed: int | None = None) -> Path:
        """A capture of captures.py, made when first asked for."""
        wanted = packets or max(int(PACKETS[kind] * self.scale), 100)
        path = self.directory / f"{kind}-{wanted}-{seed}.pcap"
        if not path.exists():
            options = ["--packets", str(wanted)] + ([] if seed is None else ["--seed", str(seed)])
            run([sys.executable, str(HERE / "captures.py"), kind, str(path), *options])
        return path

    def compare(self, section: str, what: str, unit: str, values: dict[str, float], bounds: dict[str, str]) -> None:
        """A row for every peer in `bounds`; the first value is ours."""
        ours = next(iter(values.values()))
        self.rows += [Row(section, what, unit, ours, peer, values[peer], bound) for peer, bound in bounds.items()]

    def problem(self, section: str, text: str) -> None:
        """Say and remember what could not be measured."""
        self.problems.append(f"{section}: {text}")
        print(self.problems[-1], file=sys.stderr)


def rewrite_large(bench: Bench) -> None:
    """Edit large packets, against copying the file and against tcprewrite."""
    runs = _rewrite(bench, "large")
    bench.compare("rewrite-large", "wall", "s", medians(runs, WALL), {"cp": "<= 1.3", "tcprewrite": ""})
    bench.compare("rewrite-large", "user CPU", "s", medians(runs, USER), {"tcprewrite": ">= 6"})


def rewrite_small(bench: Bench) -> None:
    """Edit small packets, likewise."""
    runs = _rewrite(bench, "small")
    bench.compare("rewrite-small", "wall", "s", medians(runs, WALL), {"cp": "", "tcprewrite": ">= 4.5"})
    bench.compare("rewrite-small", "user CPU", "s", medians(runs, USER), {"tcprewrite": ">= 6"})


def _rewrite(bench: Bench, kind: str) -> dict[str, list[Run]]:
    source = str(bench.capture(kind))
    target = str(bench.directory / "rewritten.pcap")
    contenders = {
        "pcaprewrite": [*bench.ours("pcaprewrite"), *EDITS, source, "-w", target],
        "cp": [program("cp"), source, target],
        "tcprewrite": [program("tcprewrite"), *EDITS, f"--infile={source}", f"--outfile={target}"],
    }

    def edit(argv: list[str]) -> Run:
        result = run(argv)
        _check_size(argv, target, os.path.getsize(source))
        os.unlink(target)
        return result

    return alternate({name: _bind(edit, argv) for name, argv in contenders.items()}, bench.rounds)


def replay_topspeed(bench: Bench) -> None:
    """Send small packets as fast as possible, against tcpreplay and against a bare sendmmsg loop in C."""
    sender = bench.directory / "sendmmsg"
    run([program("cc"), "-O2", "-o", str(sender), str(HERE / "sendmmsg.c")])
    _in_namespace(bench, "replay-topspeed", "topspeed", bench.capture("small"), "--sendmmsg", str(sender))


def replay_schedule(bench: Bench) -> None:
    """Send at the recorded pace, against tcpreplay: how late packets arrive at the other end of a veth pair."""
    _in_namespace(bench, "replay-schedule", "schedule", bench.capture("paced"))


def _in_namespace(bench: Bench, section: str, part: str, capture: Path, *options: str) -> None:
    argv = [program("unshare"), "-rn", sys.executable, str(HERE / "network.py"), part, str(capture), *options]
    report = bench.directory / "network.json"
    report.unlink(missing_ok=True)
    run([*argv, "--bin", bench.binaries, "--rounds", str(bench.rounds)], output=str(report), timeout=3600)
    found = json.loads(report.read_text())
    bench.rows += [Row(section, **row) for row in found["rows"]]
    for text in found["problems"]:
        bench.problem(section, text)


def tarpcap(bench: Bench) -> None:
    """Take the captures out of a .tgz, against tar, into a file."""
    archive, unpacked = _archive(bench)
    target = str(bench.directory / "unpacked")
    contenders = {
        "tarpcap": [*bench.ours("tarpcap"), "x", archive],
        "tar xzO": [program("tar"), "-xzOf", archive],
    }

    def extract(argv: list[str], size: int) -> Run:
        result = run(argv, output=target)
        _check_size(argv, target, size)
        os.unlink(target)
        return result

    # One capture comes out: of the members' headers of 24 bytes, one.
    sizes = {"tarpcap": unpacked - 24 * (MEMBERS - 1), "tar xzO": unpacked}
    runs = alternate({name: _bind(extract, argv, sizes[name]) for name, argv in contenders.items()}, bench.rounds)
    bench.compare("tarpcap", "wall", "s", medians(runs, WALL), {"tar xzO": ">= 2"})
    bench.compare("tarpcap", "user CPU", "s", medians(runs, USER), {"tar xzO": ""})


def _archive(bench: Bench) -> tuple[str, int]:
    """An archive, and the bytes of its members together."""
    path = bench.directory / "dump.tgz"
    packets = max(int(MEMBER_PACKETS * bench.scale), 100)
    members = [bench.capture("large", packets, seed) for seed in range(100, 100 + MEMBERS)]
    run([program("tar"), "-C", str(bench.directory), "-czf", str(path), *(member.name for member in members)])
    size = sum(member.stat().st_size for member in members)
    for member in members:
        member.unlink()
    return str(path), size


def startup(bench: Bench) -> None:
    """Start, against Python starting to do nothing."""
    source = str(bench.capture("large", 100))
    target = str(bench.directory / "started.pcap")
    pcaprewrite = bench.ours("pcaprewrite")

    def edit() -> Run:
        result = run([*pcaprewrite, *EDITS, source, "-w", target])
        os.unlink(target)
        return result

    runs = alternate(
        {
            "--help": lambda: run([*pcaprewrite, "--help"]),
            "100 packets": edit,
            "python -c pass": lambda: run([sys.executable, "-c", "pass"]),
        },
        STARTS_PER_ROUND * bench.rounds,
    )
    milliseconds = {name: 1000 * value for name, value in medians(runs, WALL).items()}
    idle = milliseconds.pop("python -c pass")
    for what, bound in (("--help", "<= 2"), ("100 packets", "<= 5")):
        bench.rows.append(Row("startup", what, "ms", milliseconds[what], "python -c pass", idle, bound))


def memory(bench: Bench) -> None:
    """Peak resident memory over the large capture; at least our own counts (see measure.run)."""
    target = bench.directory / "rewritten.pcap"
    ours = run([*bench.ours("pcaprewrite"), *EDITS, str(bench.capture("large")), "-w", str(target)])
    target.unlink()
    bench.rows.append(Row("memory", "peak, at most", "MiB", ours.peak / 2**20))


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "rewrite-large": rewrite_large,
    "memory": memory,
    "rewrite-small": rewrite_small,
    "replay-topspeed": replay_topspeed,
    "replay-schedule": replay_schedule,
    "tarpcap": tarpcap,
    "startup": startup,
}


def _bind(measured: Callable[..., Run], *args: object) -> Callable[[], Run]:
    return lambda: measured(*args)


def _check_size(argv: list[str], path: str, size: int) -> None:
    if os.path.getsize(path) != size:
        raise Failed(f"{' '.join(argv)}: wrote {os.path.getsize(path)} bytes instead of {size}")


def _workplace(scale: float) -> str | None:
    """Where working files go: into memory when there is room, else where the system keeps temporary files."""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > NEEDED_BYTES * scale:
        return str(MEMORY)
    print(f"no room in {MEMORY}: measuring on a disk", file=sys.stderr)
    return None


def _measure(bench: Bench, sections: list[str]) -> None:
    for name in sections:
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            SECTIONS[name](bench)
        except Missing as missing:
            bench.problem(name, f"{missing} is not there")
        except Failed as failure:
            bench.problem(name, str(failure))


def _save(bench: Bench) -> None:
    found = {
        "machine": {"system": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "rounds": bench.rounds,
        "scale": bench.scale,
        "rows": [row.record() for row in bench.rows],
        "problems": bench.problems,
    }
    (HERE / "results.json").write_text(json.dumps(found, indent=2) + "\n")


def main() -> int:
    """Run the sections; returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure the commands against their peers.")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="run this section; may be repeated")
    parser.add_argument("--rounds", type=int, default=5, help="how often each program runs (default 5)")
    parser.add_argument("--scale", type=float, default=1, help="make captures that much larger (for a try: 0.01)")
    parser.add_argument("--bin", default=os.path.dirname(sys.executable), help="the directory of the commands")
    args = parser.parse_args()
    unwind_on_signals()
    with tempfile.TemporaryDirectory(prefix="pcaptools-bench-", dir=_workplace(args.scale)) as directory:
        bench = Bench(directory, os.path.abspath(args.bin), args.rounds, args.scale)
        _measure(bench, args.only or list(SECTIONS))
    print(table(bench.rows))
    _save(bench)
    return 1 if bench.problems else 0


if __name__ == "__main__":
    sys.exit(main())
