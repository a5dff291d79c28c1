"""End-to-end cases: each tests/commands/*.test is a script, what goes in and what must come out.

# what it shows
--- input NAME          a file in the case's own directory (text)
--- needs PROGRAM       skip, saying so, without it
--- script              run by bash -o pipefail there; $CAPTURES is where the real captures are
--- stdout              expected, line by line; {{...}} is a regular expression
--- stderr              the same; none means nothing may be said
--- status              0 when not given
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from captures import MISSING, ROOT

CASES = sorted((Path(__file__).parent / "commands").glob("*.test"))


def _sections(path: Path) -> list[tuple[str, str]]:
    """(title, text) of each part of a case."""
    parts = re.split(r"^--- (.*)\n", path.read_text(), flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def _pattern(expected: str) -> str:
    """The regular expression of expected lines: their text, but for what stands in double braces."""
    pieces = re.split(r"\{\{(.*?)\}\}", expected)
    return "".join(piece if at % 2 else re.escape(piece) for at, piece in enumerate(pieces))


def _environment() -> dict[str, str]:

    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "CAPTURES": str(ROOT), "LC_ALL": "C"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_case(case: Path, tmp_path: Path) -> None:
    sections = _sections(case)
    texts = dict(sections)
    for title, text in sections:
        if title.startswith("input "):
            (tmp_path / title.removeprefix("input ")).write_text(text)
        if title.startswith("needs ") and not shutil.which(title.removeprefix("needs ")):
            pytest.skip(f"{title.removeprefix('needs ')} is not installed")
    if "$CAPTURES" in texts["script"] and not ROOT.is_dir():
        pytest.skip(MISSING)
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", texts["script"]],
        cwd=tmp_path, env=_environment(), capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "Traceback" not in result.stderr, result.stderr
    for stream, got in (("stderr", result.stderr), ("stdout", result.stdout)):
        assert re.fullmatch(_pattern(texts.get(stream, "")), got), f"{stream} of {case.name}:\n{got}"
    assert result.returncode == int(texts.get("status", "0")), result.stderr
