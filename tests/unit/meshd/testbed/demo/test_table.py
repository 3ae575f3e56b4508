"""The demo's table shows words, not the markup of their colours."""

import pytest

from meshd.console import standard_console
from meshd.testbed.demo.story import Outcome, _table


def test_a_step_is_ok_or_failed(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = [Outcome("a. first", "[200]", "[200]", ok, 1.0) for ok in (True, False)]
    standard_console(120).print(_table(outcomes))
    words = capsys.readouterr().out.split()
    assert {"ok", "FAILED", "[200]"} <= set(words)
    assert not any("[/" in word or "[green]" in word for word in words)
