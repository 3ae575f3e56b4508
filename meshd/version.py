"""`meshd version`."""

import json
from importlib.metadata import version as installed

import click

from datapath.layout import LAYOUT_VERSION


@click.command()
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def version(output: str) -> None:
    """Shows the version of the program and of the layout of its BPF maps."""
    facts = {"meshd": installed("meshd"), "map_layout": str(LAYOUT_VERSION)}
    click.echo(json.dumps(facts) if output == "json" else "\n".join(f"{key} {value}" for key, value in facts.items()))
