"""The ends of a flow, as the commands that are about one take them: SRC, DST:PORT and --protocol."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import click

PROTOCOL = click.Choice(["TCP", "UDP", "SCTP", "ICMP", "ICMPv6"], case_sensitive=False)
Command = Callable[..., Any]
_PORT = re.compile(r"[0-9]{1,5}")


class End(NamedTuple):
    """A destination; `host` is an address, or [CLUSTER/]NAMESPACE/POD."""

    host: str
    port: int


def takes_ends(command: Command) -> Command:
    """The command's arguments `source`, `destination` (an End) and its option `protocol`."""
    for parameter in (
        click.option(
            "--protocol", type=PROTOCOL, default="TCP", show_default=True, help="PORT is the type with ICMP, ICMPv6."
        ),
        click.argument("destination", metavar="DST:PORT", callback=_end),
        click.argument("source", metavar="SRC"),
    ):
        command = parameter(command)
    return command


def _end(context: click.Context, parameter: click.Parameter, text: str) -> End:
    host, colon, port = text.rpartition(":")
    if not colon or not _PORT.fullmatch(port) or int(port) > 0xFFFF:
        raise click.UsageError(f"{text!r} is not DST:PORT with a port from 0 to 65535")
    return End(host.strip("[]"), int(port))


def route_of(source: str, destination: End, protocol: str) -> str:
    """The part of a daemon's route that names them."""
    return "/".join(quote(word, safe="") for word in (source, destination.host, protocol, str(destination.port)))


def doubts(source: str, destination: End, answers: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A sentence for each name that the daemons that answered take for pods of different clusters."""
    for side, name in (("source", source), ("destination", destination.host)):
        clusters = sorted({answer[side]["cluster"] for answer in answers})
        if len(clusters) > 1 and name.count("/") == 1:
            yield f"{name} is a pod of {' and of '.join(clusters)}: say which, for example {clusters[0]}/{name}"
