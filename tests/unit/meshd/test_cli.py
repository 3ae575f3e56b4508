"""What all commands have in common."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.padding import Padding

from meshd.cli import program
from meshd.console import standard_console


def commands(group: click.Group, path: str = "meshd") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def test_the_form_of_what_is_shown_is_chosen_in_one_way() -> None:
    """By `-o` or `--output`, whichever command it is."""
    chosen = {
        path: (option.name, option.opts)
        for path, command in commands(program)
        for option in command.params
        if isinstance(option.type, click.Choice) and "json" in option.type.choices
    }
    assert len(chosen) > 10
    assert set(map(str, chosen.values())) == {str(("output", ["-o", "--output"]))}, chosen


@pytest.mark.parametrize(("mistyped", "meant"), [("statsu", "status"), ("testbd", "testbed"), ("explian", "explain")])
def test_a_mistyped_command_is_guessed(mistyped: str, meant: str) -> None:
    result = CliRunner().invoke(program, [mistyped])
    assert result.exit_code == 2
    assert f"No such command '{mistyped}'. Did you mean '{meant}'?" in result.output
    assert "Did you mean" not in CliRunner().invoke(program, ["xyzzy"]).output


def test_what_is_redirected_has_no_trailing_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    standard_console(30).print(Padding("a\nb", (0, 10)))
    assert capsys.readouterr().out.split("\n") == [" " * 10 + "a", " " * 10 + "b", ""]


@pytest.mark.parametrize("words", [("version", "-o", "json"), ("certs", "verify", "--help")])
def test_a_pipe_whose_reader_has_gone_is_no_failure(words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    argv = [sys.executable, "-m", "meshd", *words]
    ended = subprocess.run(argv, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_reader_that_has_heard_enough_is_told_to_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """`meshd status | head` ends well: cli.py sees to that, rich would end with 1."""

    def write(text: str) -> int:
        raise BrokenPipeError

    monkeypatch.setattr("sys.stdout.write", write)
    with pytest.raises(BrokenPipeError):
        standard_console(30).print("a")


def test_a_full_disk_is_said_and_no_traceback() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "meshd", "version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (2, "meshd: what it says: no space left\n")
