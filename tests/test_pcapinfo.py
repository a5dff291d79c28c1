"""pcapinfo against capinfos 4.0, line by line, on every real capture: default, -T and -M.

Where capinfos is not installed its stored lines stand in (capinfos.json.xz; `python tests/test_pcapinfo.py` stores them
anew). The differences that are meant stand in this file and in the manual page; there are no others.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import lzma
import os
import pathlib
import shutil
import struct
import subprocess
import sys

import pytest
from captures import (
    ROOT,
    PcapngBlocks,
    ether,
    every,
    index,
    ipv4,
    is_foreign,
    needs_captures,
    pcap,
    pcap_header,
    tool,
    udp,
)

from pcaptools.files.dataset import describe

TOP = pathlib.Path(__file__).resolve().parent.parent
STORED = pathlib.Path(__file__).with_name("capinfos.json.xz")
FORMS = {"long": (), "table": ("-T",), "machine": ("-M",)}
NS = 1_000_000_000
DATA = ether(ipv4(udp(b"x" * 20), 17))

# capinfos reports nothing at all of these: a compression or link type that it does not know, and captures that are
# damaged in another way than cut short. What is sound in them is known, so it is said.
MORE = {
    "formats/dnscap__dns.pcap.xz",
    "linktypes/tcpdump__dsa.pcap",
    "malformed/PcapPlusPlus__crash-pcapng-epb-unbounded-length",
    "malformed/joincap__bad_first_header.pcap",
    "malformed/libpcap__shb-option-too-long.pcapng",
    "pcapng/gopacket__le_test901.pcapng",
}
# Several sections: capinfos shows all interfaces of the file in each of them, and counts the packets of interfaces that
# have the same number in different sections as one's. Here each section has its own.
SECTIONS = {"pcapng/pcapng-test-generator__le_test200.pcapng", "pcapng/python-pcapng__test008.ntar"}
# A custom block: capinfos takes it for a packet without a time and forgets all times.
CUSTOM = {"pcapng/pcapng-test-generator__le_test017.pcapng"}
# The fraction of a second is a second or more: capinfos prints such digits and compares them apart; it is carried here.
CARRIED = {
    "malformed/PcapPlusPlus__clusterfuzz-testcase-minimized-FuzzTarget-5696447256461312",
    "malformed/tcpdump__timestamp_invalid_micro.pcap",
}


def _paths() -> list[str]:
    return [row["path"] for row in index()]


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONPATH": str(TOP), **more}


def _output(*argv: str, **options) -> str:
    settings = {"cwd": ROOT if ROOT.is_dir() else None, "env": _environment(), "timeout": 60, **options}
    return subprocess.run(argv, capture_output=True, text=True, errors="surrogateescape", **settings).stdout


def pcapinfo(*arguments: str, **options) -> str:
    return _output(sys.executable, str(TOP / "bin" / "pcapinfo"), *arguments, **options)


def _split(form: str, text: str, hashed: bool = False) -> dict[str, list[str]]:
    """The lines of each capture, without hashes, which capinfos always computes."""
    found: dict[str, list[str]] = {}
    if form == "table":
        for line in text.splitlines():
            cells = line.split("\t")
            found[cells[0]] = [cell for at, cell in enumerate(cells) if not hashed or at not in (17, 18, 19)]
        return found
    for part in text.split("File name:           ")[1:]:
        name, *lines = part.removesuffix("\n\n").rstrip("\n").split("\n")
        found[name] = [line for line in lines if not line.startswith(("SHA256:", "RIPEMD160:", "SHA1:"))]
    return found


def _run_capinfos() -> dict[str, dict[str, list[str]]]:
    return {form: _split(form, _output("capinfos", *letters, *_paths()), True) for form, letters in FORMS.items()}


def _is_4_0() -> bool:
    return bool(shutil.which("capinfos")) and "4.0." in _output("capinfos", "--version", cwd="/").splitlines()[0]


@functools.cache
def theirs() -> dict[str, dict[str, list[str]]]:
    return _run_capinfos() if _is_4_0() else json.loads(lzma.decompress(STORED.read_bytes()))


@functools.cache
def ours() -> dict[str, dict[str, list[str]]]:
    return {form: _split(form, pcapinfo(*letters, *_paths())) for form, letters in FORMS.items()}


def _short(value: int, small: str, large: str) -> str:
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value // 10**power >= 10:
            return f"{value // 10**power} {prefix}{large}"
    return f"{value}{small}"


def _seconds(ns: int) -> float:
    return ns // NS + ns % NS / 1e9


def _rates(path: str, form: str) -> dict[str, tuple[str, str]]:
    """By title: as it is, and as capinfos has it: the difference of two floating numbers of seconds since 1970, which
    is off by up to 240 ns, and so wrong in the second digit for a capture of 10 us."""
    facts = describe(str(ROOT / path))
    if facts["first_ns"] is None or facts["first_ns"] == facts["last_ns"]:
        return {}
    exact = facts["last_ns"] - facts["first_ns"]
    floating = _seconds(facts["last_ns"]) - _seconds(facts["first_ns"])
    found = {}
    for title, amount, unit, large in (
        ("Data byte rate:     ", facts["bytes"], "bytes", "Bps"),
        ("Data bit rate:      ", facts["bytes"] * 8, "bits", "bps"),
        ("Average packet rate:", facts["packets"], "packets", "packets/s"),
    ):
        if form == "long":
            values = [_short(value, f" {unit}/s", large) for value in (amount * NS // exact, int(amount / floating))]
        else:
            suffix = f" {unit}/sec" if form == "machine" else ""
            values = [f"{amount * NS / exact:.2f}{suffix}", f"{amount / floating:.2f}{suffix}"]
        found[title] = (values[0], values[1])
    return found


def _as_capinfos(path: str, form: str, lines: list[str]) -> list[str]:
    """Our lines with capinfos's floating rates in the place of the exact ones."""
    rates = _rates(path, form)
    if form == "table":
        columns = dict(zip((13, 14, 16), rates.values(), strict=False))
        for at, (exact, _) in columns.items():
            assert lines[at] in (exact, "n/a")
        return [columns[at][1] if at in columns and cell != "n/a" else cell for at, cell in enumerate(lines)]
    found = []
    for line in lines:
        title = line[:20]
        if title in rates and not line.endswith("n/a"):
            assert line == f"{title} {rates[title][0]}"
            line = f"{title} {rates[title][1]}"
        found.append(line)
    return found


@every(_paths())
@pytest.mark.parametrize("form", FORMS)
def test_the_report_is_that_of_capinfos(path: str, form: str) -> None:
    mine, its = ours()[form].get(path), theirs()[form].get(path)
    row = next(row for row in index() if row["path"] == path)
    if is_foreign(row):
        assert its is not None and mine is None
        return
    if path in MORE:
        assert its is None and mine is not None
        return
    if its is None:
        assert mine is None
        return
    assert mine is not None
    if path in CARRIED | CUSTOM:
        changed = {"Capture duration:", "First packet time:", "Last packet time:", "Data byte rate:", "Data bit rate:",
                   "Average packet rate:", "Strict time order:"}  # fmt: skip
        if form == "table":
            mine, its = (
                [c for k, c in enumerate(cells) if k not in (10, 11, 12, 13, 14, 16, 17)] for cells in (mine, its)
            )
        else:
            mine, its = (
                [line for line in lines if line[:20].split(":")[0] + ":" not in changed] for lines in (mine, its)
            )
        assert mine == its
        return
    if path in SECTIONS and form != "table":
        _check_sections(mine, its)
        return
    assert _as_capinfos(path, form, mine) == its


def _check_sections(mine: list[str], its: list[str]) -> None:
    """Equal up to the first section; then each of our interfaces once, all of them in capinfos's first section."""
    start = mine.index("Section 0:")
    assert mine[:start] == its[:start]
    titles = [[line for line in lines if line.startswith(("Section", "Capture"))] for lines in (mine, its)]
    assert titles[0] == titles[1]
    interfaces = [line for line in mine[start:] if line.startswith((" ", "Interface"))]
    first = its[start : its.index("Section 1:")]
    assert interfaces == [line for line in first if line.startswith((" ", "Interface"))]


@needs_captures
def test_the_stored_lines_are_those_of_capinfos() -> None:
    if _is_4_0():
        assert json.loads(lzma.decompress(STORED.read_bytes())) == theirs()


@needs_captures
@pytest.mark.parametrize(
    "letters",
    [*"tEIFHkDcsdluaeyizxonCA", "S", "K", "Tc", "TmQ", "TrbqtE", "MSae", "MtEcsdo", "FK", "AK", "kKc", "Kkc", "KA",
     "cA", "TSae", "TLc", "LTc", "TBmc", "TmBc", "TRrc", "TrRc", "TNQc", "TQNc", "TqQc", "TIDnc"],
)  # fmt: skip
def test_letters_select_and_shape_as_in_capinfos(letters: str) -> None:
    tool("capinfos")
    paths = ["pcapng/pcap_file_ex__sample_multi_nanosecond.pcap", "http/zeek__methods.pcap",
             "pcapng/pcapng-test-generator__be_test100.pcapng", "formats/ipsumdump__smflow.trace.gz"]  # fmt: skip

    def compared(text: str) -> list[str]:
        lines = [line for line in text.splitlines() if not line.startswith(("Data b", "Average packet rate"))]
        hashed = {"A", "H"} & set(letters)
        if "T" in letters and not set(letters) - set("TSLKQqNbmBrRM"):
            separator = "," if "m" in letters else "\t"
            rows = [line.split(separator) for line in lines]
            unlike = (13, 14, 16, 17, 18, 19) if len(rows[0]) == 25 else (13, 14, 16)
            return [separator.join(cell for at, cell in enumerate(row) if at not in unlike) for row in rows]
        return [line for line in lines if hashed or not line.startswith(("SHA", "RIPEMD"))]

    assert compared(pcapinfo(f"-{letters}", *paths)) == compared(_output("capinfos", f"-{letters}", *paths))


@needs_captures
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "Europe/Berlin"])
def test_times_are_local(zone: str) -> None:
    tool("capinfos")
    arguments = ("-ae", "http/zeek__methods.pcap", "formats/tcpdump__tcp-handshake-nano.pcap")
    environment = _environment(TZ=zone)
    assert pcapinfo(*arguments, env=environment) == _output("capinfos", *arguments, env=environment)


# Captures made by hand


@pytest.fixture
def made(tmp_path: pathlib.Path):
    """Writes a capture and returns its path."""

    def write(data: bytes, name: str = "in.pcap") -> str:
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return write


def record(*arguments: str, **options) -> dict:
    return json.loads(pcapinfo("--json", *arguments, **options))


def full_pcapng() -> bytes:
    """Every option that the report shows."""
    blocks = PcapngBlocks(">")
    option = blocks.option
    section = option(1, b"first comment") + option(1, b"second\ncomment") + option(2, b"machine") + option(3, b"system")
    options = (
        option(2, b"eth0") + option(3, b"uplink") + option(8, blocks.pack("Q", NS)) + option(12, b"Linux")
        + option(13, b"\4") + option(11, b"\0tcp port 80") + option(15, b"card") + option(1, b"of the interface")
    )  # fmt: skip
    names = blocks.pack("HH", 1, 10) + bytes([1, 2, 3, 4]) + b"host1\0" + bytes(2) + blocks.pack("HH", 2, 20)
    names += bytes(16) + b"abc\0" + blocks.pack("HH", 0, 0)
    return (
        blocks.section(section + option(4, b"program") + option(0))
        + blocks.interface(1, 96, resolution=9, options=options)
        + blocks.interface(1, 0, resolution=0x8A, offset=5, options=option(11, b"\1" + bytes(24)))
        + blocks.packet(DATA, 0, 10**18, options=option(1, b"of a packet") + option(0))
        + blocks.packet(DATA[:30], 0, 10**18 + 123456789, wire=100)
        + blocks.block(
            5, blocks.pack("III", 0, 0, 0) + option(4, blocks.pack("Q", 10)) + option(5, blocks.pack("Q", 2))
        )
        + blocks.block(4, names)
        + blocks.block(10, blocks.pack("II", 0x544C534B, 4) + b"abcd")
    )


def test_everything_of_a_pcapng(made) -> None:
    path = made(full_pcapng())
    if shutil.which("capinfos"):
        assert _split("long", pcapinfo(path)) == _split("long", _output("capinfos", path))
    facts = record(path)
    interface = facts["interfaces"][0]
    assert (interface["name"], interface["speed"], interface["filter"], interface["packets"]) == (
        "eth0",
        NS,
        "tcp port 80",
        2,
    )
    assert interface["statistics"] == {"received": 10, "dropped": 2}
    assert facts["sections"][0]["comments"] == ["first comment", "second\ncomment"]
    assert facts["packet_comments"] == [{"packet": 1, "comment": "of a packet"}]
    assert facts["resolved_names"] == {"ipv4": 1, "ipv6": 1} and facts["decryption_secrets"] == 1
    assert (facts["truncated_packets"], facts["bytes"], facts["captured_bytes"]) == (1, len(DATA) + 100, len(DATA) + 30)
    assert facts["duration_ns"] == 123456789
    assert "Packet 1 Comment:    of a packet\n" in pcapinfo("-p", path)


def test_json_has_the_damage_and_where_it_is(made) -> None:
    facts = record(made(pcap([DATA, DATA])[:-5]))
    assert facts["packets"] == 1
    assert facts["damage"] == {"offset": 24 + 16 + len(DATA), "reason": facts["damage"]["reason"]}
    assert "packet 2" in facts["damage"]["reason"]


def test_sizes_and_gaps(made) -> None:
    sizes = [*range(60, 160), 70000]
    facts = record(made(pcap([(k + 1000 * (k > 50), 0, b"", size) for k, size in enumerate(sizes)])))
    found = facts["sizes"]
    assert (found["min"], found["max"], found["mean"]) == (60, 70000, sum(sizes) / len(sizes))
    assert (found["percentiles"]["50"], found["percentiles"]["99"]) == (110, 159)
    assert (facts["largest_gap_ns"], facts["largest_gap_before_packet"]) == (1001 * NS, 52)


@pytest.mark.parametrize(
    ("packets", "lines"),
    [
        ([], ["Capture duration:    n/a", "First packet time:   n/a", "Average packet size: 0.00 bytes",
              "Data byte rate:      0 bytes/s", "Strict time order:   True"]),
        ([(1, 5, DATA, len(DATA))], ["Capture duration:    0.000000 seconds", "Average packet rate: 0 packets/s"]),
        ([(10, 5, DATA, 62), (5, 0, DATA, 62)], ["Capture duration:    5.000005 seconds", "Strict time order:   False",
                                                 "First packet time:   1970-01-01 00:00:05.000000"]),
        ([(0, 0, DATA, 62), (0xFFFFFFFF, 999999, DATA, 62)], ["Last packet time:    2106-02-07 06:28:15.999999"]),
        ([(1, 0, DATA, 2**32 - 1)], ["Data size:           4294 MB", "Packet size limit:   inferred: 62 bytes"]),
        ([(1, 0, DATA, 62), (2, 0, DATA, 62)], ["Capture duration:    1.000000 second"]),
    ],
)  # fmt: skip
def test_odd_captures(made, packets, lines) -> None:
    shown = pcapinfo(made(pcap(packets))).splitlines()
    assert set(lines) <= set(shown)
    assert record(made(pcap(packets)))["packets"] == len(packets)


@pytest.mark.parametrize(
    ("offset", "ticks", "shown", "seconds"),
    [
        (-1000, 500000, "1969-12-31 23:43:20.500000", "-999.500000"),
        (0, 5 * 10**15, "2128-06-11 08:53:20.000000", "5000000000.000000"),
    ],
)
def test_times_far_from_now(made, offset: int, ticks: int, shown: str, seconds: str) -> None:
    blocks = PcapngBlocks()
    path = made(blocks.section() + blocks.interface(1, offset=offset) + blocks.packet(DATA, 0, ticks))
    assert f"First packet time:   {shown}" in pcapinfo("-a", path)
    assert f"First packet time:   {seconds}" in pcapinfo("-aS", path)


def test_a_length_of_2_to_the_32_is_damage(made) -> None:
    facts = record(made(pcap([DATA]) + struct.pack("<IIII", 3, 0, 2**32 - 1, 2**32 - 1) + bytes(100)))
    assert facts["packets"] == 1 and "4294967295" in facts["damage"]["reason"]


@pytest.mark.parametrize("cut", range(24))
def test_a_file_header_that_is_cut(made, cut: int) -> None:
    run = subprocess.run(
        [sys.executable, str(TOP / "bin" / "pcapinfo"), made(pcap_header()[:cut])],
        capture_output=True, text=True, env=_environment(), timeout=20,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (2, "") and "Traceback" not in run.stderr and "in.pcap: " in run.stderr


def test_simple_packets_have_no_time(made) -> None:
    blocks = PcapngBlocks()
    path = made(blocks.section() + blocks.interface() + blocks.packet(DATA, 0, 5) + blocks.simple_packet(DATA))
    shown = pcapinfo(path)
    assert "time order:   Unknown" in shown and "packet time" not in shown and "duration" not in shown
    assert record(path)["untimed_packets"] == 1


def test_control_characters_do_nothing(made) -> None:
    blocks = PcapngBlocks()
    path = made(blocks.section(blocks.option(1, b"a\x1b[2Jb\nc")) + blocks.interface())
    assert "Capture comment:     a\\x1b[2Jb c\n" in pcapinfo("-k", path)
    assert len(pcapinfo("-Tk", path).splitlines()) == 2


def test_hashes_are_of_the_stored_bytes_even_from_a_pipe_and_behind_damage(made) -> None:
    import gzip

    for data in (pcap([DATA]), gzip.compress(pcap([DATA] * 1000)), pcap([DATA])[:-1] + b"\xff" * 300000):
        wanted = {name: hashlib.new(name, data).hexdigest() for name in ("sha256", "sha1")}
        path = made(data)
        with open(path, "rb") as file:
            redirected = record("-H", stdin=file)
        for found in (record("-H", path), redirected, _piped(data)):
            assert {name: found["hashes"][name] for name in wanted} == wanted
            assert found["file_size"] == len(data)


def _piped(data: bytes) -> dict:
    run = subprocess.run(
        [sys.executable, str(TOP / "bin" / "pcapinfo"), "--json", "-H"],
        input=data, capture_output=True, env=_environment(), timeout=20,
    )  # fmt: skip
    return json.loads(run.stdout)


def test_a_plot_is_drawn(made, tmp_path) -> None:
    path = made(pcap([DATA] * 3))
    target = tmp_path / "out.svg"
    command = [sys.executable, str(TOP / "bin" / "pcapinfo"), "--plot", str(target), path]
    run = subprocess.run(command, capture_output=True, text=True, env=_environment(), timeout=60)
    assert not run.returncode, run.stderr
    assert b"</svg>" in target.read_bytes()


def test_a_plot_has_two_panels_of_kinds_and_bursts() -> None:
    """Without matplotlib: what is drawn, on axes that only remember."""
    from pcaptools.engines.histogram import KINDS, Series
    from pcaptools.files import plot
    from pcaptools.files.capture import Capture

    class Axes:
        def __init__(self) -> None:
            self.drawn: list[str] = []

        def stairs(self, values, edges, **style) -> None:
            assert len(edges) == len(values) + 1
            self.drawn.append(style["label"])

        def __getattr__(self, name: str):
            return lambda *_, **__: None

    series = Series()
    for batch in Capture(io.BytesIO(pcap([(k, 0, DATA, 62) for k in range(100)])), "test"):
        series.feed(batch)
    series.end()
    axes = Axes()
    plot._panel(axes, [k * series.width / NS for k in range(len(series.slices) + 1)], "bits", series, KINDS)
    assert axes.drawn == ["UDP", "highest 10 ms"]


if __name__ == "__main__":
    STORED.write_bytes(lzma.compress(json.dumps(_run_capinfos()).encode()))
