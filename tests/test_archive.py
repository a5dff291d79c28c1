"""Tar archives made by GNU tar and by hand, cut, damaged and hostile."""

import contextlib
import io
import os
import random
import subprocess
import tarfile

import pytest

from pcaptools.errors import DamagedError, InputError, OutputError
from pcaptools.files.archive import BLOCK, SafeDirectory, is_tar, members
from pcaptools.files.compression import Decompressed

LONG = "directory/" * 15 + "n" * 90
LONGER = "l" * 160
FILES = {
    "empty": b"",
    "small": b"hello\n",
    "block": bytes(range(256)) * 2,
    "large": random.Random(1).randbytes(700_000),
}


class Pipe:
    """A stream with nothing but readinto, which gives `size` bytes at most."""

    def __init__(self, data: bytes, size: int = 1 << 20) -> None:
        self.data = io.BytesIO(data)
        self.size = size

    def readinto(self, view: memoryview) -> int:
        return self.data.readinto(view[: self.size])


def contents(member, room: int = 100_000) -> bytes:
    buffer = bytearray(room)
    out = bytearray()
    while got := member.readinto(buffer):
        out += buffer[:got]
    return bytes(out)


def unpack(stream, read: bool = True) -> tuple[dict, list[str]]:
    """The data of each file, 'cut' where it ends early; and the problems."""
    if isinstance(stream, bytes):
        stream = Pipe(stream)
    problems: list[str] = []
    found = {}
    for member in members(stream, "x.tar", problems.append):
        try:
            found[member.name] = contents(member) if read else b""
        except DamagedError as error:
            problems.append(f"{member.name}: {error}")
    return found, problems


def pack(files: dict[str, bytes], **options) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = 1_700_000_000
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def gnu_tar(directory, *options: str) -> bytes:
    command = ["tar", "-C", str(directory), "-cf", "-", *options]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


@pytest.fixture
def tree(tmp_path):
    """A directory with every kind of member."""
    for name, data in {**FILES, LONG: b"long", LONGER: b"longer", "umläut": b"u"}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    (tmp_path / "symlink").symlink_to("small")
    os.link(tmp_path / "large", tmp_path / "zlink")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
@pytest.mark.parametrize("size", [7, 1 << 20])
def test_every_kind_of_member_in_every_format(tree, form, size):
    names = sorted(os.listdir(tree))
    kinds = {
        **dict.fromkeys([*FILES, "umläut", LONG, LONGER], "file"),
        "symlink": "symlink",
        "zlink": "hardlink",
        "fifo": "other",
    }
    kinds |= {LONG[:at]: "directory" for at, letter in enumerate(LONG) if letter == "/"}
    lacks = {"v7": ["fifo", "directory", LONGER], "ustar": [LONGER]}.get(form, [])
    names = [name for name in names if name not in lacks]
    kinds = {name: kind for name, kind in kinds.items() if name.split("/")[0] not in lacks}
    archive = gnu_tar(tree, f"--format={form}", *names)
    assert is_tar(archive[:BLOCK])
    problems: list[str] = []
    found = {}
    for member in members(Pipe(archive, size), "x", problems.append):
        found[member.name] = member.kind
        expected = (tree / member.name).read_bytes() if member.kind == "file" else b""
        assert member.size == len(expected)
        assert contents(member) == expected
        assert member.mtime == 1_700_000_000 or member.name not in FILES
    assert problems == []
    assert found == kinds


def test_gnu_tar_agrees_on_offsets(tree):
    archive = gnu_tar(tree, "--format=gnu", *sorted(os.listdir(tree)))
    listing = subprocess.run(["tar", "-tRf", "-"], input=archive, stdout=subprocess.PIPE, check=True).stdout.decode()
    blocks = [int(line.split()[1].rstrip(":")) for line in listing.splitlines() if "**" not in line]
    found = [member.offset for member in members(Pipe(archive), "x", pytest.fail)]
    assert found == [block * BLOCK for block in blocks]


@pytest.mark.parametrize(
    "form", ["--format=oldgnu", "--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"]
)
def test_sparse_files(tmp_path, form):
    with open(tmp_path / "hole", "wb") as file:
        for at in range(0, 3_000_000, 100_000):  # more stretches than a header holds
            file.seek(at + 50_000)
            file.write(bytes([1 + at % 250]) * 5000)
        file.truncate(3_500_000)
    (tmp_path / "only").write_bytes(b"")
    os.truncate(tmp_path / "only", 1_000_000)
    (tmp_path / "z").write_bytes(b"after")
    if "version" in form:
        form += " --format=posix"
    archive = gnu_tar(tmp_path, "--sparse", *form.split(), "hole", "only", "z")
    assert len(archive) < 1_000_000
    expected = {name: (tmp_path / name).read_bytes() for name in ("hole", "only", "z")}
    assert unpack(archive) == (expected, [])
    assert unpack(archive, read=False) == (dict.fromkeys(expected, b""), [])
    for cut in range(BLOCK, archive.index(b"after") - BLOCK, 10_007):
        found, problems = unpack(archive[:cut])
        assert problems
        assert "z" not in found


def test_numbers_in_base_256_and_pax_sizes():
    huge = tarfile.TarInfo("huge")
    huge.size = 9 << 30
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        header = huge.tobuf(form)
        problems: list[str] = []
        for member in members(Pipe(header + b"data"), "x", problems.append):
            assert (member.size, member.offset, member.read(100)) == (9 << 30, 0, b"data")
        assert problems == [
            f"archive damaged at offset {len(header) + 4}: it ends {(9 << 30) - 4} bytes before the end of 'huge'"
        ]


def test_members_that_nobody_reads_are_skipped(tree):
    path = tree / "x.tar"
    path.write_bytes(archive := gnu_tar(tree, *FILES, LONG))
    offsets = [(member.name, member.offset) for member in members(Pipe(archive), "x", pytest.fail)]
    for buffering in (0, 4096):
        with open(path, "rb", buffering=buffering) as file:
            assert [(member.name, member.offset) for member in members(file, "x", pytest.fail)] == offsets
    assert [name for name, _ in offsets] == [*FILES, LONG]


def test_a_plain_file_is_skipped_by_seeking(tree):
    class Counting(io.FileIO):
        read_bytes = 0

        def readinto(self, view):
            Counting.read_bytes += (got := super().readinto(view))
            return got

    path = tree / "x.tar"
    path.write_bytes(gnu_tar(tree, *FILES))
    with Counting(str(path)) as file:
        assert [member.name for member in members(file, "x", pytest.fail)] == list(FILES)
    assert Counting.read_bytes < 20_000


def test_a_member_is_read_in_part_and_only_in_its_time():
    archive = pack({"a": FILES["large"], "b": b"bb"})
    found = []
    for member in members(Pipe(archive), "x", pytest.fail):
        found.append(member)
        assert member.read(2) == (FILES["large"][:2] if member.name == "a" else b"bb")
    with pytest.raises(ValueError, match="moved on"):
        found[0].read(1)


def test_compressed_archives(tree):
    for option, kind in [("-z", "gzip"), ("--zstd", "zstd"), ("-J", "xz"), ("-j", "bzip2")]:
        stream = Decompressed(io.BytesIO(gnu_tar(tree, option, *FILES)))
        assert unpack(stream) == (FILES, [])
        assert stream.kind == kind


def test_damage_of_the_compression_passes_through(tree):
    packed = gnu_tar(tree, "-z", *FILES, LONG)
    found = []
    with pytest.raises(DamagedError, match="gzip data damaged at byte"):
        for member in members(Decompressed(io.BytesIO(packed[: len(packed) // 2])), "x", pytest.fail):
            found.append(member.name)
    assert found == list(FILES)


def test_endings():
    archive = pack(FILES)
    end = len(archive.rstrip(b"\0")) + BLOCK
    end -= end % BLOCK
    for sound in [archive[:end], archive[: end + BLOCK], archive + bytes(100_000), archive[: end + 700]]:
        assert unpack(sound) == (FILES, [])
    assert unpack(archive + pack({"more": b"m"})) == ({**FILES, "more": b"m"}, [])
    assert unpack(bytes(10_240)) == ({}, [])


def test_an_archive_cut_at_every_byte():
    files = {"first": b"1" * 600, "second": b"2" * 5}
    archive = pack(files)
    second = archive.index(b"second")
    for cut in range(BLOCK, second + 2 * BLOCK):
        found, problems = unpack(archive[:cut])
        listed, told = unpack(archive[:cut], read=False)
        data, header = cut >= BLOCK + 600, cut > second
        assert found.get("first") == (files["first"] if data else None)
        assert found.get("second") == (files["second"] if cut >= second + BLOCK + 5 else None)
        assert len(problems) == len(told)
        if not data:
            assert problems == [f"first: member ends {BLOCK + 600 - cut} bytes early"]
            assert told == [
                f"archive damaged at offset {cut}: it ends {BLOCK + 600 - cut} bytes before the end of 'first'"
            ]
        elif header and cut < second + BLOCK:
            assert (
                problems
                == told
                == [f"archive damaged at offset {second}: truncated header; {cut - second} bytes skipped"]
            )
        else:
            assert bool(problems) == (header and cut < second + BLOCK + 5)
        assert list(listed) == ["first", "second"][: 1 + (cut >= second + BLOCK)]


def test_garbage_between_members_is_told_once():
    one, two = pack({"one": b"1"})[: 2 * BLOCK], pack({"two": b"2"})
    garbage = random.Random(4).randbytes(BLOCK) + bytes(BLOCK) + random.Random(5).randbytes(5 * BLOCK)
    found, problems = unpack(one + garbage + one.replace(b"one", b"oen") + garbage + two + garbage)
    assert found == {"one": b"1", "oen": b"1", "two": b"2"}
    starts = [2 * BLOCK, 11 * BLOCK, 18 * BLOCK + len(two)]
    assert [problem.split(":")[0] for problem in problems] == [f"archive damaged at offset {start}" for start in starts]
    assert all(problem.endswith(f"; {7 * BLOCK} bytes skipped") for problem in problems)


def test_a_damaged_header_costs_one_member():
    archive = bytearray(pack({name: name.encode() * 300 for name in "abc"}, format=tarfile.USTAR_FORMAT))
    for name in "abc":
        damaged = bytearray(archive)
        damaged[archive.index(name.encode() + b"\0") + 100] ^= 1
        found, problems = unpack(bytes(damaged))
        assert found == {other: other.encode() * 300 for other in "abc" if other != name}
        assert len(problems) == 1


def test_headers_that_lie():
    after = pack({"after": b"a"})

    def header(form=tarfile.GNU_FORMAT, **fields) -> bytes:
        info = tarfile.TarInfo("x")
        for name, value in fields.items():
            setattr(info, name, value)
        return info.tobuf(form)

    lies = [
        header(size=-5),
        header(type=tarfile.GNUTYPE_LONGNAME, size=1 << 40),
        header(type=tarfile.XHDTYPE, size=1 << 40),
        header(type=tarfile.XHDTYPE, size=20) + b"0 path=x\n".ljust(BLOCK, b"\0"),
        header(type=tarfile.XHDTYPE, size=20) + b"13 size=-700\n".ljust(BLOCK, b"\0") + header(),
        header(type=tarfile.XHDTYPE, size=20) + b"13 mtime=inf\n".ljust(BLOCK, b"\0") + header(),
        header(type=tarfile.XHDTYPE, size=40) + b"24 GNU.sparse.map=0,9,5\n".ljust(BLOCK, b"\0") + header(),
        header(type=tarfile.XHDTYPE, size=40) + b"26 GNU.sparse.map=0,9,5,9\n".ljust(BLOCK, b"\0") + header(),
        header(type=tarfile.GNUTYPE_LONGNAME, size=5) + b"name".ljust(BLOCK, b"\0") + bytes(BLOCK),
        header(type=tarfile.XGLTYPE, size=0) * 3000,
    ]
    for lie in lies:
        found, problems = unpack(lie + after)
        assert found == {"after": b"a"}, lie[:20]
        assert len(problems) == 1


def test_random_damage_never_ends_in_a_traceback(tree):
    base = gnu_tar(tree, "--format=posix", "--sparse", "small", "block", LONG, "symlink") + pack({"x": b"x"})
    chance = random.Random(6)
    for _ in range(300):
        damaged = bytearray(base)
        for _ in range(chance.randint(1, 20)):
            damaged[chance.randrange(len(damaged))] = chance.choice(b"\0 0179=\n\xff\x80")
        try:
            found, problems = unpack(bytes(damaged))
        except InputError:
            continue
        assert set(found) >= {"x"} or problems


def test_what_is_no_archive():
    for data in [b"short", random.Random(7).randbytes(5000), b"\xd4\xc3\xb2\xa1" + bytes(2000), b"text\n" * 1000]:
        assert not is_tar(data[:BLOCK])
        with pytest.raises(InputError, match=r"^x\.tar: not a tar archive$"):
            unpack(data)
    with pytest.raises(InputError, match=r"^x\.tar: not a tar archive: it is empty$"):
        unpack(b"")


def test_an_archive_whose_first_header_is_damaged():
    archive = bytearray(pack({"a": b"1", "b": b"2"}))
    archive[0] ^= 1
    found, problems = unpack(bytes(archive))
    assert found == {"b": b"2"}
    assert problems == [f"archive damaged at offset 0: bad checksum; {2 * BLOCK} bytes skipped"]


def test_is_tar_knows_old_headers():
    block = bytearray(tarfile.TarInfo("n\xe9").tobuf(tarfile.GNU_FORMAT, "latin-1"))
    block[257:265] = bytes(8)
    for signed in (False, True):
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % (sum(block) - 256 * signed)
        assert is_tar(bytes(block))
        assert unpack(bytes(block) + bytes(2 * BLOCK))[1] == []
    block[0] += 1
    assert not is_tar(bytes(block))
    assert not is_tar(bytes(BLOCK))
    assert not is_tar(bytes(block[:300]))


HOSTILE = [
    "",
    ".",
    "/",
    "./.",
    "/etc/passwd",
    "//x",
    "..",
    "../x",
    "a/../x",
    "a/..",
    "x\0y",
    "n" * 300,
    "d/" * 2500 + "x",
    "\ud800",
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_are_refused(tmp_path, name):
    inside = tmp_path / "inside"
    inside.mkdir()
    with SafeDirectory(str(inside)) as directory:
        with pytest.raises(OutputError):
            directory.create(name)
        with pytest.raises(OutputError):
            directory.remove(name)
    assert os.listdir(tmp_path) == ["inside"]
    assert [file for _, _, files in os.walk(inside) for file in files] == []


def test_files_are_created_below(tmp_path):
    names = ["a", "b/c/d", "./b//c/e", "...", "-rf", "line\nbreak", "\udcff", "b/..x"]
    with SafeDirectory(str(tmp_path)) as directory:
        for name in names:
            with directory.create(name) as file:
                file.write(name.encode(errors="surrogateescape"))
    for name in names:
        assert (tmp_path / name).read_bytes() == name.encode(errors="surrogateescape")


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "outside").write_bytes(b"old")
    inside = tmp_path / "inside"
    (inside / "directory").mkdir(parents=True)
    (inside / "file").write_bytes(b"old")
    (inside / "link").symlink_to("../outside")
    (inside / "dangling").symlink_to("../new")
    with SafeDirectory(str(inside)) as directory:
        for name in ["file", "link", "dangling", "directory"]:
            with pytest.raises(OutputError, match=f"^'{name}': exists already$"):
                directory.create(name)
        with pytest.raises(OutputError, match=r"^'file/x': a file or a symbolic link is where it needs a directory$"):
            directory.create("file/x")
    assert sorted(os.listdir(tmp_path)) == ["inside", "outside"]
    assert (tmp_path / "outside").read_bytes() == (inside / "file").read_bytes() == b"old"


def test_links_below_are_not_followed(tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"old")
    (inside / "real").mkdir(parents=True)
    (inside / "evil").symlink_to(outside)
    (inside / "real" / "evil").symlink_to("../../outside")
    (inside / "loop").symlink_to("loop")
    with SafeDirectory(str(inside)) as directory:
        for name in ["evil/x", "real/evil/x", "evil/sub/x", "loop/x"]:
            with pytest.raises(OutputError, match="symbolic link"):
                directory.create(name)
        for name in ["evil/kept", "real/evil/kept"]:
            with pytest.raises(OutputError, match="symbolic link"):
                directory.remove(name)
    assert os.listdir(outside) == ["kept"]


def test_the_directory_itself_may_be_a_link_and_may_move(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with SafeDirectory(str(tmp_path / "link")) as directory:
        (tmp_path / "real").rename(tmp_path / "moved")
        directory.create("file").close()
    assert os.listdir(tmp_path / "moved") == ["file"]


def test_remove(tmp_path):
    with SafeDirectory(str(tmp_path)) as directory:
        directory.create("a/b").close()
        directory.remove("a/b")
        directory.remove("a/b")
        directory.remove("never/was")
        with pytest.raises(OutputError, match=r"^'a': "):
            directory.remove("a")
    assert os.listdir(tmp_path) == ["a"]
    assert os.listdir(tmp_path / "a") == []


def test_no_descriptor_is_left_open(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    before = len(os.listdir("/dev/fd"))
    with SafeDirectory(str(tmp_path)) as directory:
        for name in ["a/b/c", "a/b/c", "file/x", "../x", "a/b", "n" * 300]:
            with contextlib.suppress(OutputError):
                directory.create(name).close()
            with contextlib.suppress(OutputError):
                directory.remove(name + "/none")
    assert len(os.listdir("/dev/fd")) == before


def test_a_directory_that_cannot_be_opened(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for name, reason in [("none", "No such file or directory"), ("file", "Not a directory")]:
        with pytest.raises(OutputError, match=f"{name}: {reason}$"):
            SafeDirectory(str(tmp_path / name))
