"""What all commands have in common."""

from collections.abc import Iterator

import click

from meshd.cli import program


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
