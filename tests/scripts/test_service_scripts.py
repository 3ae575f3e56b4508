"""Every script about services, on the pure merge and on the daemon's mesh."""

from pathlib import Path

import pytest

from tests.support.service_script import Meshed, Pure, run

SCRIPTS = sorted((Path(__file__).parent / "services").glob("*.txt"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    run(path.read_text(), Pure())


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_on_faulty_maps(path: Path) -> None:
    seed = sum(path.stem.encode())
    print(f"one write to the maps in ten fails, seed {seed}")
    run(path.read_text(), Meshed(seed))


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) > 5
