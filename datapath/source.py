"""The program text and the compiler's flags, and the build number that stands for both.

bcc rewrites map accesses only in the main text, not in included files, so our own headers are put in place here;
`#line` keeps the file names of messages.
"""

import hashlib
import platform
import re
import sysconfig
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datapath.layout import EVENTS_SIZE, MAPS
from datapath.maglev import DEFAULT_SIZE

FOLDER = Path(__file__).parent / "bpf"
_MAIN = "mesh.bpf.c"
_CLOCK_MONOTONIC_COARSE = 6  # it goes by the kernel's ticks, so that its resolution tells how long one is
_INCLUDE = re.compile(r'#include "([\w.]+)"')


@dataclass(frozen=True, slots=True)
class Source:
    text: str
    flags: tuple[str, ...]

    @property
    def build(self) -> str:
        """Changes with every change of the text or the flags."""
        digest = hashlib.sha256("\0".join((self.text, *self.flags)).encode())
        return digest.hexdigest()[:16]


def read_source(pins: Path, sizes: Mapping[str, int], maglev_size: int = DEFAULT_SIZE) -> Source:
    """The programs for maps in the folder `pins` with `sizes` (entries) where they differ from the default.

    Raises ValueError for a size of a map that does not exist.
    """
    unknown = sizes.keys() - MAPS.keys()
    if unknown:
        raise ValueError(f"size given for unknown map {', '.join(sorted(unknown))}")
    flags = [f'-DMD_PINS="{pins}"']
    for name, spec in MAPS.items():
        flags.append(f"-D{name.upper()}_SIZE={sizes.get(name, spec.size)}")
    flags.append(f"-DMD_MAGLEV_ENTRIES={maglev_size}")
    flags.append(f"-DMD_EVENTS_SIZE={EVENTS_SIZE}")
    flags.append(f"-DMD_HZ={round(1 / time.clock_getres(_CLOCK_MONOTONIC_COARSE))}")
    triplet = sysconfig.get_config_var("MULTIARCH") or f"{platform.machine()}-linux-gnu"
    flags += ["-idirafter", "/usr/include", "-idirafter", f"/usr/include/{triplet}"]
    return Source(_expand(_MAIN, set()), tuple(flags))


def _expand(name: str, seen: set[str]) -> str:
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate((FOLDER / name).read_text().splitlines(), 1):
        include = _INCLUDE.match(line)
        if not include:
            lines.append(line)
        elif include[1] not in seen:
            seen.add(include[1])
            lines += [_expand(include[1], seen), f'#line {number + 1} "{name}"']
        else:
            lines.append("")
    return "\n".join(lines)
