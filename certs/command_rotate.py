"""`meshd certs rotate`: new leaves in place of old ones, and a new CA in three steps."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from certs.authority import load_ca
from certs.names import CertsError, Leaf
from certs.options import Refusal, directory
from certs.rotation import Step, ends_within, list_leaves, rotate_ca, rotate_leaf


@click.command("rotate")
@click.argument("leaves", metavar="[LEAF...]", nargs=-1)
@directory("--dir", "Directory that holds the CA (in ca/).", required=True)
@directory("--out", "Directory of leaves' folders, may be given several times; --dir if not given.", multiple=True)
@click.option("--days-left", type=click.IntRange(min=0), help="Leave alone what has this many days left or more.")
@click.option(
    "--ca", "step", type=click.Choice([step.value for step in Step]), help="Rotate the CA instead: take this step."
)
def rotate_command(
    leaves: tuple[str, ...], dir: Path, out: tuple[Path, ...], days_left: int | None, step: str | None
) -> None:
    """Issue leaves anew, with a new key and the names they have; all leaves if none is named.

    Key, certificate and CAs of a folder change in one step; proxies and readers take them up by themselves.

    The CA is rotated in three steps. Bring the folders to all clusters after each:

    \b
      --ca prepare   make a new CA; every ca.crt holds old and new
      --ca switch    the new CA signs, and all leaves are issued anew
      --ca finish    every ca.crt holds the new one only
    """
    now = datetime.now(UTC)
    try:
        if step:
            if leaves or days_left is not None:
                raise Refusal("--ca takes no LEAF and no --days-left: it concerns all leaves")
            lines: Iterable[str] = rotate_ca(dir, out or (dir,), Step(step), now=now)
        else:
            span = None if days_left is None else timedelta(days=days_left)
            lines = _rotate(leaves, dir, out or (dir,), span, now=now)
        for line in lines:  # as they come: what was done before a failure was done
            click.echo(line)
    except (CertsError, OSError) as error:
        raise Refusal.of(error) from error


def _rotate(
    names: tuple[str, ...], dir: Path, places: tuple[Path, ...], span: timedelta | None, *, now: datetime
) -> Iterator[str]:
    authority = load_ca(dir)
    standing = [(place, leaf) for place in places for leaf in list_leaves(place)]
    wanted = [Leaf.parse(name) for name in names]
    if absent := [leaf.common_name for leaf in wanted if leaf not in [leaf for _, leaf in standing]]:
        raise CertsError(f"not found: {', '.join(absent)}; make them with `meshd certs issue`, or say where with --out")
    for place, leaf in standing:
        if wanted and leaf not in wanted:
            continue
        if span is not None and not ends_within(leaf, place, span, now=now):
            yield f"left {place / leaf.folder} alone: it has {span.days} days or more"
        else:
            yield f"rotated {leaf.common_name} in {rotate_leaf(authority, leaf, place, now=now)}"
