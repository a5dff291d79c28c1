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
PACKETS = {"large": 1_000_000, "small": 1_500_000, "paced": 100_000, "many": 5_000_000}
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


def rewrite_more(bench: Bench) -> None:
    """Anonymise small packets against tcprewrite --seed; grow them against an edit in place."""
    source = str(bench.capture("small"))
    target = str(bench.directory / "rewritten.pcap")
    ours = [*bench.ours("pcaprewrite"), source, "-w", target]
    contenders = {
        "--anonymize": [*ours, "--anonymize=key"],
        "tcprewrite --seed": [program("tcprewrite"), "--seed=5", f"--infile={source}", f"--outfile={target}"],
        "--vlan-push": [*ours, "--vlan-push=5"],
        "--enet-dmac": [*ours, "--enet-dmac=02:00:00:00:00:02"],
    }

    def edit(argv: list[str]) -> Run:
        result = run(argv)
        os.unlink(target)
        return result

    walls = medians(alternate({name: _bind(edit, argv) for name, argv in contenders.items()}, bench.rounds), WALL)
    seed, grow = ("--anonymize", "tcprewrite --seed"), ("--vlan-push", "--enet-dmac")
    bench.compare("rewrite-anonymize", "wall", "s", {name: walls[name] for name in seed}, {seed[1]: ">= 3"})
    bench.compare("rewrite-grow", "wall", "s", {name: walls[name] for name in grow}, {grow[1]: "<= 2"})


def replay_topspeed(bench: Bench) -> None:
    """Send small packets as fast as possible, against tcpreplay and against a bare sendmmsg loop in C."""
    sender = bench.directory / "sendmmsg"
    run([program("cc"), "-O2", "-o", str(sender), str(HERE / "sendmmsg.c")])
    _in_namespace(bench, "replay-topspeed", "topspeed", bench.capture("small"), "--sendmmsg", str(sender))


def replay_schedule(bench: Bench) -> None:
    """Send at the recorded pace, against tcpreplay: how late packets arrive at the other end of a veth pair."""
    _in_namespace(bench, "replay-schedule", "schedule", bench.capture("paced"))


def liveplay(bench: Bench) -> None:
    """Play connections to nginx: one, against tcpliveplay, and a thousand at once."""
    _in_namespace(bench, "liveplay", "live", bench.directory)


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
    bench.compare("tarpcap", "wall", "s", medians(runs, WALL), {"tar xzO": ">= 2.3"})
    bench.compare("tarpcap", "user CPU", "s", medians(runs, USER), {"tar xzO": ""})


def tarpcap_merge(bench: Bench) -> None:
    """Merge the captures of a .tgz by time, with and without a kept index, against taking them out in turn."""
    archive, unpacked = _archive(bench)
    target, index = str(bench.directory / "merged"), str(bench.directory / "dump.idx")
    ours = bench.ours("tarpcap")
    plain = archive.replace(".tgz", ".tar")
    run([program("gzip"), "-dc", archive], output=plain)
    size = unpacked - 24 * (MEMBERS - 1)
    run([*ours, "m", f"--index={index}", "-w", target, archive])
    os.unlink(target)
    contenders = {
        "m, kept index": ([*ours, "m", f"--index={index}", archive], size),
        "m": ([*ours, "m", archive], size),
        "tarpcap x": ([*ours, "x", archive], size),
        "x of .tar": ([*ours, "x", plain], size),
        "cat": ([program("cat"), plain], os.path.getsize(plain)),
    }

    def write(argv: list[str], wanted: int) -> Run:
        result = run(argv, output=target)
        _check_size(argv, target, wanted)
        os.unlink(target)
        return result

    runs = alternate({name: _bind(write, *contender) for name, contender in contenders.items()}, bench.rounds)
    wall = medians(runs, WALL)
    pairs = (("m, kept index", "tarpcap x", "<= 1.6"), ("m", "tarpcap x", "<= 2.7"), ("x of .tar", "cat", ""))
    for what, peer, bound in pairs:
        bench.rows.append(Row("tarpcap-m", what, "s", wall[what], peer, wall[peer], bound))
    peak = max(result.peak for result in runs["m"])
    bench.rows.append(Row("tarpcap-m", "peak, at most", "MiB", peak / 2**20, bound="<= 200", absolute=True))


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


def info(bench: Bench) -> None:
    """Look at a capture, against capinfos: packets only, all figures, compressed, and hashes against hashing alone."""
    capture = str(bench.capture("small", max(int(PACKETS["many"] * bench.scale), 100)))
    run([program("gzip"), "-kf", capture])
    pcapinfo, capinfos = bench.ours("pcapinfo"), program("capinfos")
    hashing = "import hashlib, sys\nhashes = [hashlib.new(n) for n in ('sha256', 'ripemd160', 'sha1')]\n"
    hashing += (
        "with open(sys.argv[1], 'rb') as file:\n while data := file.read(1 << 20):\n  for h in hashes: h.update(data)"
    )
    pairs = {
        "packets": ([*pcapinfo, "-c", capture], "capinfos", [capinfos, "-c", capture], ">= 4"),
        "all but hashes": ([*pcapinfo, capture], "capinfos", [capinfos, "-tEIFkDcsdluaeyizxon", capture], ">= 4"),
        "with hashes": ([*pcapinfo, "-A", capture], "hashes alone", [sys.executable, "-c", hashing, capture], "<= 1.3"),
        "packets of .gz": ([*pcapinfo, "-c", f"{capture}.gz"], "capinfos", [capinfos, "-c", f"{capture}.gz"], ">= 2"),
    }
    for what, (ours, peer, theirs, bound) in pairs.items():
        runs = alternate({"pcapinfo": _bind(run, ours), peer: _bind(run, theirs)}, bench.rounds)
        bench.compare("info", what, "s", medians(runs, WALL), {peer: bound})
    peak = run([*pcapinfo, "--json", "--conversations", capture]).peak
    bench.rows.append(Row("info", "peak, at most", "MiB", peak / 2**20))


def dataset(bench: Bench) -> None:
    """Map 1000 captures: packets for each CPU-second; GopherCap's mapper does 2.8 million."""
    packets, files = max(int(20_000 * bench.scale), 100), 1000
    one = bench.capture("small", packets)
    directory = bench.directory / "dataset"
    directory.mkdir()
    for number in range(files):
        os.link(one, directory / f"{number:04}.pcap")
    argv = [*bench.ours("pcapinfo"), "--recursive", str(directory), "--workers", "1", "--dump-json", "-"]
    runs = alternate({"pcapinfo": _bind(run, argv)}, bench.rounds)
    used = medians(runs, WALL)["pcapinfo"]  # of one process: at least its CPU
    gophercap = packets * files / 2.8e6
    bench.rows.append(Row("dataset", "wall", "s", used, "gopherCap's CPU", gophercap, ">= 5"))
    shutil.rmtree(directory)


def split_flows(bench: Bench) -> None:
    """Split 50 000 flows, against making the same files and nothing else, and against PcapSplitter if it is there."""
    packets = max(int(1_100_000 * bench.scale), 1000)
    source, target = bench.directory / "flows.pcap", bench.directory / "flows"
    run([*bench.ours("pcapgen"), "mix", "-n", str(packets), "--flows", str(packets // 22), "-w", str(source)])
    bare, sizes = bench.directory / "files", bench.directory / "sizes"
    run([program("cc"), "-O2", "-o", str(bare), str(HERE / "files.c")])
    ours = [*bench.ours("pcapsplit-flows"), "-d", str(target), str(source)]
    run(ours)
    sizes.write_text("\n".join(str(path.stat().st_size) for path in target.iterdir()) + "\n")
    shutil.rmtree(target)
    alone = [str(bare), str(target), str(sizes)]
    contenders = {"pcapsplit-flows": ours, "the files alone": alone, "read, and the files": [*alone, str(source)]}
    bounds = {"the files alone": "<= 1.4", "read, and the files": ""}
    splitter = shutil.which("PcapSplitter")
    if splitter:
        contenders["PcapSplitter"] = [splitter, "-f", str(source), "-o", str(target), "-m", "connection"]
        bounds["PcapSplitter"] = ">= 2.5"

    def write(argv: list[str]) -> Run:
        target.mkdir()
        result = run(argv)
        shutil.rmtree(target)
        return result

    runs = alternate({name: _bind(write, argv) for name, argv in contenders.items()}, bench.rounds)
    bench.compare("split-flows", "wall", "s", medians(runs, WALL), bounds)
    lists = {"--list": _bind(run, [*ours[:-3], "--list", str(source)])}
    if splitter:
        lists["PcapSplitter"] = _bind(write, contenders["PcapSplitter"])
    used = medians(alternate(lists, bench.rounds), USER)
    stated = packets / 0.79e6  # CPU seconds, as measured where it could be had
    peer, name = (used["PcapSplitter"], "PcapSplitter") if splitter else (stated, "PcapSplitter's CPU")
    bench.rows.append(Row("split-flows", "--list, user", "s", used["--list"], name, peer, ">= 8"))
    source.unlink()


def sessions(bench: Bench) -> None:
    """38 000 TCP connections: the statistics alone against tcptrace and against what miruo did, and what is shown."""
    packets = max(int(1_140_000 * bench.scale), 1000)
    source = str(bench.directory / "sessions.pcap")
    run([*bench.ours("pcapgen"), "mix", "-n", str(packets), "--flows", str(packets // 30), "-w", source])
    off = ["-m", "tcp", "-r", "0", "-S", "0", "-R", "0", "-F", "0", "--zero-window", "0", "--no-reply", "0"]
    ours = bench.ours("pcapsessions")
    contenders = {"pcapsessions": _bind(run, [*ours, *off, source]), "shown": _bind(run, [*ours, source])}
    tcptrace = shutil.which("tcptrace")
    if tcptrace:
        contenders["tcptrace"] = _bind(run, [tcptrace, "-n", source])
    runs = alternate(contenders, bench.rounds)
    used, peaks = medians(runs, USER), medians(runs, attrgetter("peak"))
    peer, name = (used["tcptrace"], "tcptrace -n") if tcptrace else (packets / 1.46e6, "tcptrace's CPU")
    bench.rows.append(Row("sessions", "statistics, user", "s", used["pcapsessions"], name, peer, ">= 3"))
    miruo = packets / 2.0e6  # CPU seconds, as measured where it could be had
    bench.rows.append(Row("sessions", "statistics, user", "s", used["pcapsessions"], "miruo's CPU", miruo, ">= 3"))
    bench.rows.append(Row("sessions", "default, user", "s", used["shown"], name, peer))
    peak = peaks["pcapsessions"] / 2**20
    bench.rows.append(Row("sessions", "statistics, peak", "MiB", peak, bound="<= 100", absolute=True))
    bench.rows.append(Row("sessions", "default, peak", "MiB", peaks["shown"] / 2**20))
    os.unlink(source)


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "rewrite-large": rewrite_large,
    "memory": memory,
    "rewrite-small": rewrite_small,
    "rewrite-more": rewrite_more,
    "replay-topspeed": replay_topspeed,
    "replay-schedule": replay_schedule,
    "liveplay": liveplay,
    "tarpcap": tarpcap,
    "tarpcap-m": tarpcap_merge,
    "split-flows": split_flows,
    "sessions": sessions,
    "startup": startup,
    "info": info,
    "dataset": dataset,
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
