"""Every script about services, on the pure merge and on the daemon's mesh."""

from pathlib import Path

import pytest

from tests.support.service_script import Meshed, Pure, run

SCRIPTS = sorted((Path(__file__).parent / "services").glob("*.txt"))


@pytest.mark.parametrize("subject", [Pure, Meshed])
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path, subject: type[Pure] | type[Meshed]) -> None:
    run(path.read_text(), subject())


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) > 5
