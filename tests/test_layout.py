"""The rooms and the direction of imports: this test is the law, DESIGN and README its comment."""

import ast
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
PACKAGE = TOP / "pcaptools"
MODULES = sorted(PACKAGE.rglob("*.py")) + sorted(PACKAGE.rglob("*.pyx"))

# What each room may import of the project.
ALLOWED = {
    "commands": {"cli", "engines", "files", "net", "core", "errors"},
    "cli": {"engines", "files", "core", "errors"},
    "engines": {"core", "errors", "engines"},
    "files": {"core", "errors", "files"},
    "net": {"core", "errors", "net"},
    "core": {"core", "errors"},
    "errors": set(),
    "__init__": set(),
}

# What the pure rooms must not import: the outside world.
IMPURE = {"os", "socket", "time", "select", "subprocess", "pcap", "docopt"}

# Each third-party package has one importer.
IMPORTER = {
    "docopt": "cli",
    "dpkt": "engines/craft",
    "httptools": "engines/http_messages",
    "pcap": "net/pypcap",
    "isal": "files/compression",
    "zstandard": "files/compression",
    "lz4": "files/compression",
    "pyroute2": "net/netlink",
    "rapidgzip": "files/seekable",
    "matplotlib": "files/plot",
}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py").removesuffix(".pyx")


def _imports(path: Path) -> set[str]:
    """Every module that a file imports, at whatever depth; of a .pyx by its lines, since ast cannot read it."""
    text = path.read_text()
    if path.suffix == ".pyx":
        words = [line.split() for line in text.splitlines()]
        return {line[1] for line in words if len(line) > 2 and line[0] == "from" and line[2] in ("import", "cimport")}
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _ids(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=_ids)
def test_imports_go_one_way(path: Path) -> None:
    allowed = ALLOWED[_room(path)]
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] != "pcaptools" or parts[1] == "__version__":
            continue
        assert parts[1] in allowed, f"{path} imports {name}"


@pytest.mark.parametrize("path", [p for p in MODULES if _room(p) in ("core", "engines")], ids=_ids)
def test_core_and_engines_stay_pure(path: Path) -> None:
    assert not {name.split(".")[0] for name in _imports(path)} & IMPURE


@pytest.mark.parametrize("path", MODULES, ids=_ids)
def test_third_party_packages_have_one_importer(path: Path) -> None:
    here = str(path.relative_to(PACKAGE).with_suffix(""))
    for name in _imports(path):
        package = name.split(".")[0]
        known = package in sys.stdlib_module_names or package in ("pcaptools", "cpython", "libc", "typing_extensions")
        assert known or IMPORTER.get(package) == here, f"{path} imports {name}"


def test_importing_the_package_imports_nothing() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]


def test_stubs_differ_by_name_only() -> None:
    stubs = sorted((TOP / "bin").iterdir())
    assert stubs
    assert len({stub.read_text().replace(stub.name.replace("-", "_"), "COMMAND") for stub in stubs}) == 1
    for stub in stubs:
        assert stub.stat().st_mode & 0o111, f"{stub} is not executable"
        assert (PACKAGE / "commands" / f"{stub.name.replace('-', '_')}.py").exists()
        assert (TOP / "man" / f"{stub.name}.1").exists()


def test_headers_are_plain_c() -> None:
    for header in PACKAGE.rglob("*.h"):
        assert "Python.h" not in header.read_text(), header
