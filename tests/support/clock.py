"""Processes whose wall clock is off. A small library, loaded before all others, shifts it."""

import subprocess
from datetime import timedelta
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")


def shifted_clock(folder: Path, shift: timedelta) -> dict[str, str]:
    """What a process needs in its environment to live `shift` later. Builds the library in the folder."""
    library = folder / "clock.so"
    if not library.exists():
        command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True)
    return {"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(int(shift.total_seconds()))}
