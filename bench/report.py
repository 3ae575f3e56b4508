"""What every benchmark ends with: one table for people, one JSON for machines, missed aims shown as missed."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from meshd.console import standard_console

BUILD = Path(__file__).parents[1] / "build" / "bench"


@dataclass(frozen=True, slots=True)
class Aim:
    """A figure that was promised: what is aimed at in words, the value that was measured, whether it holds."""

    name: str
    aim: str
    value: float | str
    ok: bool


def spread(values: Sequence[float]) -> str:
    """`median (least to most)` of a few values."""
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile. Raises ValueError without values."""
    if not values:
        raise ValueError("no values were measured")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def report(name: str, rows: Sequence[dict[str, object]], aims: Sequence[Aim]) -> None:
    """Prints both tables and writes build/bench/<name>.json."""
    console = standard_console(120)
    table = Table(title=f"bench {name}", title_justify="left")
    for column in rows[0] if rows else ():
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    console.print(table)
    for aim in aims:
        verdict = Text("met", "green") if aim.ok else Text("missed", "red")
        console.print(f"  {aim.name}: {_text(aim.value)} (aim {aim.aim})", verdict, highlight=False)
    BUILD.mkdir(parents=True, exist_ok=True)
    path = BUILD / f"{name}.json"
    path.write_text(json.dumps({"rows": list(rows), "aims": [asdict(aim) for aim in aims]}, indent=2) + "\n")
    console.print(f"  written: {path.relative_to(BUILD.parents[1])}", highlight=False)


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
