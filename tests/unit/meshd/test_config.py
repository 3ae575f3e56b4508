from pathlib import Path

import pytest

from meshd.config import ConfigError, Settings, load


class Example(Settings):
    cluster: str
    id: int
    folder: Path | None = None
    deep: bool = False


def test_flags_lie_on_top_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("cluster: a\nid: 1\nfolder: /x\n")
    assert load(Example, file, {"id": 2, "deep": None}) == Example(cluster="a", id=2, folder=Path("/x"))


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("cluster: no\nid: '1'\ndeep: 1\ncolour: red\n")
    with pytest.raises(ConfigError) as error:
        load(Example, file, {})
    for key in ("id", "deep", "colour", "cluster"):
        assert key in str(error.value)


@pytest.mark.parametrize("text", ["- a", "a: [", "\x00"])
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load(Example, file, {})
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        load(Example, tmp_path / "missing.yaml", {})
