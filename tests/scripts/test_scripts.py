"""Every script beside this file, on maps that fail now and then."""

from pathlib import Path

import pytest

from tests.support.script import Script

SCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    Script(path.stem).run(path.read_text())


def test_there_are_scripts() -> None:
    assert SCRIPTS
