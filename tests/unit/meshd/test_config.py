from pathlib import Path

import pytest
from pydantic import model_validator

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


class Together(Settings):
    low: int
    high: int

    @model_validator(mode="after")
    def _check(self) -> "Together":
        if self.low > self.high:
            raise ValueError("low must not be above high")
        return self


def test_what_is_wrong_with_several_settings_together_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"\n  low must not be above high$"):
        load(Together, None, {"low": 2, "high": 1})
