"""tarpcap as a whole: choosing, extracting, merging, making archives; archives that are cut, damaged and hostile."""

import gzip
import hashlib
import io
import json
import lzma
import os
import random
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import captures
import pytest
import zstandard

COMMAND = [sys.executable, str(Path(__file__).parent.parent / "bin" / "tarpcap")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "LC_ALL": "C"}
SECOND = 1_000_000_000


class Result:
    def __init__(self, done: subprocess.CompletedProcess) -> None:
        self.status = done.returncode
        self.out: bytes = done.stdout
        self.lines = done.stderr.decode().splitlines()
        self.text = done.stdout.decode(errors="replace")

    @property
    def packets(self) -> list:
        return captures.packets(self.out)

    @property
    def payloads(self) -> list[bytes]:
        return [data for *_, data in self.packets]


def tarpcap(*arguments, data: bytes = b"", cwd=None) -> Result:
    command = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(command, input=data, capture_output=True, cwd=cwd, env=ENVIRONMENT, timeout=60)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return Result(done)


def capture(*packets: tuple[int, bytes], linktype: int = 1, nanoseconds: bool = True) -> bytes:
    """A classic pcap of (time in ns, data)."""
    unit, magic = (1, 0xA1B23C4D) if nanoseconds else (1000, 0xA1B2C3D4)
    records = [(time // SECOND, time % SECOND // unit, data, len(data)) for time, data in packets]
    return captures.pcap(records, linktype, magic=magic)


def tar(members: dict[str, bytes], mode: str = "w", **options) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, **options) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


ONE = capture((5 * SECOND, b"one" * 20), (9 * SECOND + 1, b"two" * 20))
OTHER = capture((7 * SECOND, b"three" * 20))
FILES = {"d/one.pcap": ONE, "d/notes.txt": b"not a capture\n", "d/sub/other.cap": OTHER, "one.pcap": ONE}


@pytest.fixture
def archive(tmp_path) -> Path:
    path = tmp_path / "a.tgz"
    path.write_bytes(tar(FILES, "w:gz"))
    return path


# ---- choosing


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["d/one.pcap", "d/sub/other.cap", "one.pcap"]),
        (["*.cap"], ["d/sub/other.cap"]),
        (["d/*"], ["d/one.pcap", "d/sub/other.cap"]),
        (["d/s?b"], ["d/sub/other.cap"]),
        (["./d/*.pcap", "[x-z]*"], ["d/one.pcap"]),
        (["--file-regexp=^one|cap$", "--exclude=sub,*.txt"], ["d/one.pcap", "one.pcap"]),
        (["--exclude=d/*"], ["one.pcap"]),
        (["--exclude=d"], ["one.pcap"]),
    ],
)
def test_members_are_chosen(archive, options, names):
    assert tarpcap("t", archive, *options).text.splitlines() == names
    assert tarpcap("x", archive, "--dry-run", *options).text.splitlines() == names


def test_nothing_chosen_is_an_error(archive):
    result = tarpcap("x", archive, "*.none")
    assert (result.status, result.out) == (2, b"")
    assert result.lines == [f"tarpcap: no capture in {archive}"]


def test_an_archive_whose_name_has_wildcards(tmp_path):
    (tmp_path / "a[1].tar").write_bytes(tar(FILES))
    assert len(tarpcap("x", tmp_path / "a[1].tar").packets) == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x", "--file-regexp=("], "--file-regexp: '(' is not a regular expression"),
        (["x", "--from=yesterday"], "--from: 'yesterday' is neither a date"),
        (["x", "--from=5", "--to=5"], "--from is not before --to"),
        (["x", "--window=5"], "--window does not go with x"),
        (["t", "-w", "x"], "--write does not go with t"),
        (["t", "-C", "x"], "--directory does not go with t"),
        (["x", "-C", "x", "-f", "udp"], "--separate writes the captures as they are: --filter does not go with it"),
        (["x", "--separate", "--compress=rar"], "--compress: 'rar' is neither gz nor zst"),
        (["x", "--interface-per-member"], "--interface-per-member needs --format=pcapng"),
        (["m", "--window=5", "--spool=."], "--window reads forward once: --spool does not go with it"),
        (["m", "--window=x"], "--window: 'x' is not a number of seconds"),
        (["c", "--by=hour:1"], "--by: 'hour:1' is neither time:SECONDS nor size:BYTES"),
        (["c", "--format=pcap"], "--format: files are stored as they are; it goes with --by"),
        (["m", "--index=a.tgz"], "--index: a.tgz exists and is no index: it stays as it is"),
    ],
)
def test_usage(archive, arguments, said):
    result = tarpcap(*arguments, archive, cwd=archive.parent)
    assert (result.status, result.out) == (2, b"")
    assert result.lines[0].startswith(f"tarpcap: {said}")


def test_packets_of_a_period(archive):
    assert tarpcap("x", archive, "--from=7").payloads == [b"two" * 20, b"three" * 20, b"two" * 20]
    assert tarpcap("x", archive, "--from=1970-01-01T00:00:05Z", "--to=9.000000001").payloads == [
        b"one" * 20, b"three" * 20, b"one" * 20,
    ]  # fmt: skip
    result = tarpcap("m", archive, "-v", "--to", "1970-01-01 01:00:08+01:00")
    assert len(result.packets) == 3
    assert result.lines[-1] == "tarpcap: in 5 = out 3 + dropped 2 (2 outside the period)"


# ---- listing


def test_listing_as_json(archive):
    rows = [json.loads(line) for line in tarpcap("t", "--json", "-v", archive).text.splitlines()]
    assert rows[0] == {
        "name": "d/one.pcap", "archive": str(archive), "size": len(ONE), "offset": 0, "mtime": 0, "format": "nspcap",
        "linktypes": ["EN10MB (1)"], "packets": 2, "first": "1970-01-01T00:00:05.000000000Z",
        "last": "1970-01-01T00:00:09.000000001Z",
    }  # fmt: skip
    assert set(json.loads(tarpcap("t", "--json", archive).text.splitlines()[1])) == {
        "name", "archive", "size", "offset", "mtime", "format",
    }  # fmt: skip


def test_bundled_letters(archive):
    assert tarpcap("tvf", archive).text.startswith("nspcap\tEN10MB (1)\t2\t")
    assert len(tarpcap("xzf", archive).packets) == 5
    assert len(tarpcap("mf", archive).packets) == 5


# ---- to files


def files_below(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_to_files(archive, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assert tarpcap("x", archive, "-C", out).status == 0
    assert files_below(out) == {name: data for name, data in FILES.items() if "txt" not in name}
    again = tarpcap("x", archive, "--separate", "-C", out)
    assert again.status == 1
    assert len(again.lines) == 3
    assert all("exists already" in line for line in again.lines)


def test_to_flat_files(archive, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assert tarpcap("x", archive, "--flat", "--separate", cwd=out).status == 0
    assert files_below(out) == {"one.pcap": ONE, "one-2.pcap": ONE, "other.cap": OTHER}


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_to_compressed_files(tmp_path, kind):
    out = tmp_path / "out"
    out.mkdir()
    packed = gzip.compress(OTHER)
    data = tar({"a.pcap": ONE, "b.pcap.gz": packed})
    assert tarpcap("x", f"--compress={kind}", "-C", out, data=data).status == 0
    found = files_below(out)
    unpack = {"gz": gzip.decompress, "zst": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data)}
    assert found.pop("b.pcap.gz") == packed
    assert {name: unpack[kind](data) for name, data in found.items()} == {f"a.pcap.{kind}": ONE}


def test_a_dry_run_touches_nothing(archive, tmp_path):
    before = files_below(tmp_path)
    result = tarpcap("x", archive, "--flat", "--compress=gz", "--dry-run", "-C", "none", cwd=tmp_path)
    assert result.text.splitlines() == ["none/one.pcap.gz", "none/other.cap.gz", "none/one-2.pcap.gz"]
    assert files_below(tmp_path) == before


# ---- archives in archives, zip


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_archives_in_archives(tmp_path, pack):
    data = tar({"in/a.tar": pack(tar(FILES)), "b.pcap": OTHER})
    assert tarpcap("t", data=data).text.splitlines() == ["b.pcap"]
    names = ["in/a.tar/d/one.pcap", "in/a.tar/d/sub/other.cap", "in/a.tar/one.pcap", "b.pcap"]
    assert tarpcap("t", "--recursive", data=data).text.splitlines() == names
    assert len(tarpcap("x", "--recursive", data=data).packets) == 6
    (tmp_path / "a.tar").write_bytes(data)
    result = tarpcap("m", "--recursive", tmp_path / "a.tar")
    if pack is bytes:
        assert [time for time, *_ in result.packets] == sorted(time for time, *_ in result.packets)
        assert len(result.packets) == 6
    else:
        assert (result.status, result.out) == (2, b"")
        assert "in a compressed archive in an archive" in result.lines[0]
        assert len(tarpcap("m", "--recursive", "--spool", tmp_path, tmp_path / "a.tar").packets) == 6


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_zip(tmp_path, how):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in FILES.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 11, 21, 8, 0, 0)), data, how)
    assert tarpcap("t", path).text.splitlines() == ["d/one.pcap", "d/sub/other.cap", "one.pcap"]
    assert tarpcap("x", path).packets == tarpcap("x", data=tar(FILES)).packets
    assert [time for time, *_ in tarpcap("m", path).packets] == [5 * SECOND] * 2 + [7 * SECOND] + [9 * SECOND + 1] * 2
    result = tarpcap("x", data=path.read_bytes())
    assert result.status == 2
    assert "through a pipe" in result.lines[0]


def test_a_damaged_zip(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.pcap", ONE)
        archive.writestr("b.pcap", capture(*((k * SECOND, random.Random(k).randbytes(999)) for k in range(99))))
        archive.writestr("c.pcap", OTHER)
    data = bytearray(path.read_bytes())
    data[30_000:30_100] = bytes(100)
    path.write_bytes(data)
    result = tarpcap("x", path)
    assert result.status == 1
    assert len(result.lines) == 1
    assert "b.pcap: zip member damaged at byte" in result.lines[0]
    assert {b"one" * 20, b"three" * 20} <= set(result.payloads)
    path.write_bytes(data[:-30])
    assert tarpcap("x", path).status == 2


# ---- merging


def worker_files(workers: int = 4, files: int = 50, packets: int = 12, seed: int = 5) -> dict[str, bytes]:
    """What capture workers leave behind: each its own rotating files, no two packets at the same time."""
    chance = random.Random(seed)
    times = chance.sample(range(10**15, 10**15 + 10**9), workers * files * packets)
    found: dict[str, bytes] = {}
    for worker in range(workers):
        mine = sorted(times[worker::workers])
        for k in range(files):
            some = mine[k * packets : (k + 1) * packets]
            some_packets = ((time, chance.randbytes(chance.randint(60, 900))) for time in some)
            found[f"w{worker}/{k:03}.pcap"] = capture(*some_packets)
    names = sorted(found, key=lambda name: name[3:])  # interleaved, as they were finished
    return {name: found[name] for name in names}


WORKERS = worker_files()
SORTED = sorted(packet for data in WORKERS.values() for packet in captures.packets(data))


def zstd_frames(data: bytes) -> bytes:
    return b"".join(zstandard.compress(data[at : at + 500_000]) for at in range(0, len(data), 500_000))


def xz_blocks(data: bytes) -> bytes:
    command = ["xz", "-0", "-T2", "--block-size=300000", "-c"]
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


SEEKABLE = {"tar": bytes, "tgz": gzip.compress, "tzst": zstd_frames, "txz": xz_blocks}


@pytest.mark.parametrize("kind", SEEKABLE)
def test_merging_what_workers_wrote(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(SEEKABLE[kind](tar(WORKERS)))
    result = tarpcap("m", path, "-v")
    assert result.lines == ["tarpcap: in 2400 = out 2400 + dropped 0"]
    assert result.packets == SORTED


def test_mergecap_agrees(tmp_path):
    mergecap = captures.tool("mergecap")
    (tmp_path / "a.tgz").write_bytes(tar(WORKERS, "w:gz"))
    for name, data in WORKERS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    subprocess.run([mergecap, "-F", "nsecpcap", "-w", "merged", *WORKERS], cwd=tmp_path, check=True)
    merged = captures.packets((tmp_path / "merged").read_bytes())
    assert merged == SORTED
    assert tarpcap("m", tmp_path / "a.tgz").packets == merged
    assert tarpcap("m", *WORKERS, cwd=tmp_path).packets == merged


def test_merging_sparse_members(tmp_path):
    hole = capture((1 * SECOND, b"a" * 99), (6 * SECOND, bytes(200_000)), (8 * SECOND, b"b" * 99))
    (tmp_path / "hole.pcap").write_bytes(hole)
    subprocess.run(["cp", "--sparse=always", "hole.pcap", "sparse.pcap"], cwd=tmp_path, check=True)
    (tmp_path / "one.pcap").write_bytes(ONE)
    for form in ("gnu", "posix"):
        command = ["tar", f"--format={form}", "-Sczf", f"{form}.tgz", "sparse.pcap", "one.pcap"]
        subprocess.run(command, cwd=tmp_path, check=True)
        result = tarpcap("m", tmp_path / f"{form}.tgz")
        assert result.payloads == [b"a" * 99, b"one" * 20, bytes(200_000), b"b" * 99, b"two" * 20]
        assert sorted(tarpcap("x", tmp_path / f"{form}.tgz").packets) == result.packets


def test_equal_times_keep_the_order_of_the_archive(tmp_path):
    members = {f"{k}.pcap": capture(*((t * SECOND, b"%d at %d" % (k, t)) for t in (3, 3, 4, 9))) for k in range(5)}
    (tmp_path / "a.tar").write_bytes(tar(members))
    wanted = [b"%d at %d" % (k, t) for t, times in ((3, 2), (4, 1), (9, 1)) for k in range(5) for _ in range(times)]
    assert tarpcap("m", tmp_path / "a.tar").payloads == wanted
    assert tarpcap("m", "--window=100", data=tar(members)).payloads == wanted


def test_captures_and_archives_together(tmp_path):
    (tmp_path / "a.tgz").write_bytes(tar({"one.pcap": gzip.compress(ONE)}, "w:gz"))
    (tmp_path / "b.pcap").write_bytes(OTHER)
    late = capture((8 * SECOND, b"late"), (6 * SECOND, b"early"), nanoseconds=False)
    result = tarpcap("m", "a.tgz", "b.pcap", "-", data=late, cwd=tmp_path)
    assert result.payloads == [b"one" * 20, b"three" * 20, b"late", b"early", b"two" * 20]
    missing = tarpcap("m", "a.tgz", "none.pcap", "b.pcap", cwd=tmp_path)
    assert (missing.status, len(missing.packets)) == (1, 3)
    assert missing.lines == ["tarpcap: none.pcap: No such file or directory"]


def test_the_index_is_kept_and_used(tmp_path):
    archive, index = tmp_path / "a.tgz", tmp_path / "index"
    archive.write_bytes(tar(WORKERS, "w:gz"))
    assert tarpcap("m", "--index", index, archive).packets == SORTED
    kept = index.read_bytes()
    assert tarpcap("m", "--index", index, archive).packets == SORTED
    assert index.read_bytes() == kept
    chosen = tarpcap("m", "--index", index, archive, "w1/*")
    assert len(chosen.packets) == len(SORTED) // 4
    few = dict(list(WORKERS.items())[:8])
    archive.write_bytes(tar(few, "w:gz"))
    assert len(tarpcap("m", "--index", index, archive).packets) == 8 * 12
    assert index.read_bytes() != kept
    index.write_bytes(index.read_bytes()[:-5])
    assert len(tarpcap("m", "--index", index, archive).packets) == 8 * 12


REFUSED = {"a pipe": None, "one zstd frame": zstandard.compress, "one xz block": lzma.compress}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_seek(tmp_path, what):
    data, path, pack = tar(WORKERS), tmp_path / "a", REFUSED[what]
    arguments, data = ([], data) if pack is None else ([path], b"" * path.write_bytes(pack(data)))
    result = tarpcap("m", *arguments, data=data)
    assert (result.status, result.out, len(result.lines)) == (2, b"", 1)
    assert what in result.lines[0]
    assert "--window SECONDS" in result.lines[0]
    spool = tmp_path / "spool"
    spool.mkdir()
    assert tarpcap("m", "--spool", spool, *arguments, data=data).packets == SORTED
    assert list(spool.iterdir()) == []
    assert tarpcap("m", "--window=10", *arguments, data=data).packets == SORTED


def test_a_window_that_is_too_small(tmp_path):
    members = {f"{k}": capture((k * SECOND, b"x"), ((50 + k) * SECOND, b"y")) for k in range(40)}
    large = capture(*((time * SECOND, bytes(60_000)) for time in (60, 100) for _ in range(40)))
    data = tar({"large": large, **members})
    result = tarpcap("m", "--window=20", data=data)
    assert result.status == 1
    assert len(result.packets) == 160
    assert result.lines == [
        "tarpcap: 50 packets are out of order: they came later than the window of 20 s allows; give a longer one"
    ]
    assert tarpcap("m", "--window=100", data=data).status == 0


@pytest.mark.parametrize("letter", ["x", "m"])
def test_other_link_types(tmp_path, letter):
    members = {"a": capture((SECOND, b"ether" * 9)), "b": capture((2 * SECOND, b"raw" * 9), linktype=101), "c": ONE}
    (tmp_path / "a.tar").write_bytes(tar(members))
    result = tarpcap(letter, tmp_path / "a.tar")
    assert result.status == 1
    assert result.lines == [
        "tarpcap: 1 packets of RAW (101) were not written: the output has EN10MB (1); --format pcapng keeps them all"
    ]
    assert len(result.packets) == 3
    result = tarpcap(letter, "-F", "pcapng", tmp_path / "a.tar")
    assert result.status == 0
    assert [linktype for _, _, linktype, _ in result.packets] == [1, 101, 1, 1]
    assert interfaces(result.out) == [(1, ""), (101, "")]
    result = tarpcap(letter, "-F", "pcapng", "--interface-per-member", tmp_path / "a.tar")
    assert interfaces(result.out) == [(1, "a"), (101, "b"), (1, "c")]
    assert len(result.packets) == 4


def interfaces(data: bytes) -> list[tuple[int, str]]:
    """(link type, name) of each interface of a pcapng in this machine's byte order."""
    found, at = [], 0
    while at < len(data):
        kind, length = struct.unpack_from("=II", data, at)
        if kind == 1:
            code, size = struct.unpack_from("=HH", data, at + 16)
            name = data[at + 20 : at + 20 + size].decode() if code == 2 else ""
            found.append((struct.unpack_from("=H", data, at + 8)[0], name))
        at += length
    return found


# ---- making


def test_made_twice_alike(tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name, data in {"in/z.pcap": ONE, "in/sub/a.pcap": OTHER, "b.pcap": ONE}.items():
        (tmp_path / name).write_bytes(data)
    assert tarpcap("c", "-w", "a.tgz", "in", "b.pcap", cwd=tmp_path).status == 0
    os.utime(tmp_path / "b.pcap", (1, 1))
    os.chmod(tmp_path / "b.pcap", 0o600)
    assert tarpcap("cf", "b.tgz", "./b.pcap", "in/z.pcap", "in", cwd=tmp_path).status == 0
    digests = {hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a.tgz", "b.tgz")}
    assert len(digests) == 1
    with tarfile.open(tmp_path / "a.tgz") as archive:
        assert archive.getnames() == ["b.pcap", "in/sub/a.pcap", "in/z.pcap"]
        assert {(i.mtime, i.uid, i.gid, i.uname, i.mode) for i in archive} == {(0, 0, 0, "", 0o644)}
    missing = tarpcap("c", "none", "b.pcap", cwd=tmp_path)
    assert missing.status == 1
    assert tarpcap("x", data=missing.out).packets == captures.packets(ONE)
    assert tarpcap("c", "-w", "c.tar", "none", cwd=tmp_path).status == 2
    assert not (tmp_path / "c.tar").exists()
    above = tarpcap("c", "../b.pcap", cwd=tmp_path / "in")
    assert tarpcap("t", data=above.out).text == "b.pcap\n"


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ("time:10", [[1, 2, 9], [10, 11, 3], [25], [30]]),
        ("time:1", [[1], [2], [9], [10], [11, 3], [25], [30]]),
        ("size:300", [[1, 2], [9, 10], [11, 3], [25, 30]]),
        ("size:1", [[1], [2], [9], [10], [11], [3], [25], [30]]),
        ("size:1k", [[1, 2, 9, 10, 11, 3, 25, 30]]),
    ],
)
def test_a_stream_is_cut_into_members(rule, wanted):
    seconds = [1, 2, 9, 10, 11, 3, 25, 30]
    data = capture(*((second * SECOND, bytes(90)) for second in seconds))
    made = tarpcap("c", f"--by={rule}", "-", data=data)
    assert made.status == 0
    with tarfile.open(fileobj=io.BytesIO(made.out)) as archive:
        members = [archive.extractfile(info).read() for info in archive]
        assert archive.getnames() == [f"{k + 1:06}.pcap" for k in range(len(members))]
    assert [[time // SECOND for time, *_ in captures.packets(member)] for member in members] == wanted
    assert tarpcap("x", data=made.out).out == data


# ---- bad input: what is sound comes out, each problem is one line, exit status 1


def bad(data: bytes, *arguments) -> Result:
    result = tarpcap("x", *arguments, data=data)
    assert result.status == 1
    return result


BIG = capture(*((k * SECOND, random.Random(k).randbytes(400)) for k in range(20)))


def test_bad_truncated_archive():
    data = tar({"a": ONE, "b": BIG})
    result = bad(data[: 2 * 1024 + 3000])
    assert len(result.lines) == 1
    assert result.lines[0].startswith("tarpcap: standard input: b: member ends ")
    assert len(result.packets) == 2 + 8
    long = capture(*((k * SECOND, random.Random(k).randbytes(400)) for k in range(2000)))
    for pack in (gzip.compress, zstandard.compress, lzma.compress):
        packed = pack(tar({"a": ONE, "b": long}))
        result = bad(packed[: len(packed) * 3 // 4])
        assert len(result.lines) == 1
        assert "standard input: b: " in result.lines[0]
        assert "at byte " in result.lines[0]
        assert len(result.packets) > 1000


def test_bad_header_checksum():
    data = bytearray(tar({"a": ONE, "b": BIG, "c": OTHER}))
    second = data.index(b"b\0\0\0\0\0\0")
    data[second + 100] ^= 1
    result = bad(bytes(data))
    assert len(result.lines) == 1
    assert f"archive damaged at offset {second}: bad checksum" in result.lines[0]
    assert result.payloads == [b"one" * 20, b"two" * 20, b"three" * 20]


def test_bad_member_shorter_than_its_size():
    info = tarfile.TarInfo("b")
    info.size = len(BIG) + 100_000
    result = bad(tar({"a": ONE})[:1024] + info.tobuf() + BIG)
    assert len(result.lines) == 1
    assert "standard input: b: " in result.lines[0]
    assert "member ends 100000 bytes early" in result.lines[0]
    assert len(result.packets) == 22


def test_bad_garbage_between_members(tmp_path):
    data = tar({"a": ONE})[:1024] + random.Random(1).randbytes(5120) + tar({"c": OTHER})
    for name, content in (("x", data), ("m", data)):
        (tmp_path / "a.tar").write_bytes(content)
        result = tarpcap(name, tmp_path / "a.tar")
        assert result.status == 1
        assert len(result.lines) == 1
        assert "archive damaged at offset 1024" in result.lines[0]
        assert "5120 bytes skipped" in result.lines[0]
        assert sorted(result.payloads) == sorted([b"one" * 20, b"two" * 20, b"three" * 20])


def test_bad_member_damaged_inside(tmp_path):
    damaged = bytearray(BIG)
    damaged[24 + 5 * 416 + 8 : 24 + 5 * 416 + 12] = b"\xff" * 4
    packed = bytearray(gzip.compress(BIG))
    packed[-5] ^= 1
    data = tar({"a": bytes(damaged), "b": bytes(packed), "c": OTHER})
    (tmp_path / "a.tar").write_bytes(data)
    for result in (bad(data), tarpcap("m", tmp_path / "a.tar")):
        assert result.status == 1
        assert len(result.lines) == 2
        lines = sorted(result.lines)
        assert ": a: packet 6 at offset 2104: captured length" in lines[0]
        assert ": b: gzip data damaged at byte " in lines[1]
        assert len(result.packets) == 5 + 20 + 1


def test_bad_bomb(tmp_path):
    zeros = capture(*((k, bytes(100_000)) for k in range(800)))
    bomb = zstandard.compress(zeros)
    assert len(zeros) // len(bomb) > 1000
    data = tar({"a": ONE, "bomb": bomb, "c": OTHER})
    result = bad(data)
    assert len(result.lines) == 1
    assert "standard input: bomb: zstd data at byte " in result.lines[0]
    assert "expands more than 1000-fold (see --max-ratio)" in result.lines[0]
    assert set(result.payloads) == {b"one" * 20, b"two" * 20, bytes(100_000), b"three" * 20}
    assert len(tarpcap("x", "--max-ratio=0", "-f", "greater 1", data=data).payloads) == 803
    (tmp_path / "bomb.tgz").write_bytes(gzip.compress(tar({"a": ONE, "zeros": zeros})))
    for letter in "xm":
        result = tarpcap(letter, "--max-ratio=100", tmp_path / "bomb.tgz")
        assert result.status == 1
        assert any("more than 100-fold" in line for line in result.lines)


def test_bad_names(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    names = ["../up", "/tmp/absolute-pcap", "a/../../b", "x" * 65_536, "d/" * 33_000 + "e", "..", "good"]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(ONE)
            archive.addfile(info, io.BytesIO(ONE))
        for kind in (tarfile.CHRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"special{kind.decode()}")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    nul = tarfile.TarInfo("nul")
    nul.size = len(ONE)
    header = nul.tobuf(tarfile.PAX_FORMAT)
    record = b"14 path=a\0b.x\n"[:14]
    extended = tarfile.TarInfo("pax")
    extended.type, extended.size = tarfile.XHDTYPE, len(record)
    path = tmp_path / "evil.tar"
    ending = len(buffer.getvalue().rstrip(b"\0")) + 511 & ~511
    content = buffer.getvalue()[:ending] + extended.tobuf() + record.ljust(512, b"\0") + header + ONE
    path.write_bytes(content + bytes(-len(content) % 512 + 1024))
    for option in ([], ["--flat"]):
        before = sorted(os.listdir(tmp_path))
        result = tarpcap("x", "-v", "-C", out, *option, path)
        assert result.status == 1
        refused = [line for line in result.lines if "evil.tar: " in line]
        assert len(refused) == 7 + bool(option), result.lines  # the second time, one name is there already
        assert sum(map(len, result.lines)) < 1_000_000
        assert sorted(os.listdir(tmp_path)) == before
        assert files_below(out) == {"good": ONE}
    assert "4 members are not captures" in result.lines[-1]
    assert not os.path.exists("/tmp/absolute-pcap")
    assert len(tarpcap("x", path).packets) == 2 * 8
