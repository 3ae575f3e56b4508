"""What a benchmark prints and writes."""

import json
from pathlib import Path

import pytest

from bench import report as module
from bench.report import Aim, report


def test_aims_are_told_in_words_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "BUILD", tmp_path / "build" / "bench")
    report("x", [{"what": "[a]", "ms": 1.5}], [Aim("fast", "≤ 2", 1.5, True), Aim("small", "≤ 1", 2.5, False)])
    said = capsys.readouterr().out
    assert "  fast: 1.500 (aim ≤ 2) met\n  small: 2.500 (aim ≤ 1) missed\n" in said
    assert "[a]" in said
    written = json.loads((tmp_path / "build" / "bench" / "x.json").read_text())
    assert written["rows"] == [{"what": "[a]", "ms": 1.5}]
    assert [aim["ok"] for aim in written["aims"]] == [True, False]
