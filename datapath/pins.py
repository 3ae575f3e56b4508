"""Where an instance keeps what in bpffs: `<bpffs>/meshd/<instance>/v<LAYOUT>/`.

md_*                  maps
programs/<build>/*    programs of one build; the folder appears when all of them are loaded
links/*               cgroup attachments, one per socket hook
interfaces/*          attachments to interfaces (TCX): <ifindex>-<program>
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from datapath import bpf
from datapath.layout import LAYOUT_VERSION

INTERFACES = "interfaces"
_INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class PinsError(Exception):
    """The folder for pins cannot be used; the text says why and what to do."""


class Attachment(StrEnum):
    """How programs are attached to interfaces; auto: by TCX where the kernel has it."""

    AUTO = "auto"
    TCX = "tcx"
    CLSACT = "clsact"


@dataclass(frozen=True, slots=True)
class Programs:
    """The loaded programs of one build, and how they are attached to interfaces."""

    folder: Path
    instance: str
    attachment: Attachment = Attachment.AUTO

    @property
    def interfaces(self) -> Path:
        """Where links to interfaces are pinned, whatever build they run."""
        return self.folder.parent.parent / INTERFACES

    def path(self, name: str) -> Path:
        return self.folder / name

    def id(self, name: str) -> int:
        """The kernel's number of the program. Raises OSError."""
        with bpf.opened(self.path(name)) as fd:
            return bpf.program_id(fd)


@dataclass(frozen=True, slots=True)
class Pins:
    """The folders of one instance at this layout version."""

    bpffs: Path
    instance: str

    def __post_init__(self) -> None:
        if not _INSTANCE.fullmatch(self.instance):
            raise PinsError(f"instance name {self.instance!r}: use letters, digits, '.', '-' and '_' only")

    @property
    def root(self) -> Path:
        """Holds every layout version of the instance. bpffs allows no dot in a name."""
        return self.bpffs / "meshd" / self.instance.replace(".", "+")

    @property
    def folder(self) -> Path:
        return self.root / f"v{LAYOUT_VERSION}"

    @property
    def builds(self) -> Path:
        return self.folder / "programs"

    @property
    def links(self) -> Path:
        return self.folder / "links"

    @property
    def interfaces(self) -> Path:
        return self.folder / INTERFACES

    def programs(self, build: str, attachment: Attachment = Attachment.AUTO) -> Programs:
        return Programs(self.builds / build, self.instance, attachment)

    def create(self) -> None:
        """Make the folders. Raises PinsError where `bpffs` is none."""
        if not _is_bpffs(self.bpffs):
            raise PinsError(
                f"{self.bpffs} is not in a bpffs: mount one with 'mount -t bpf bpf {self.bpffs}', "
                "and do not enter with 'ip netns exec', which hides it"
            )
        for folder in (self.builds, self.links, self.interfaces):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)


def _is_bpffs(folder: Path) -> bool:
    """Whether the nearest mount above `folder` is a bpffs (proc(5), mountinfo)."""
    folder = folder.resolve()
    kinds: dict[Path, str] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kinds[Path(before.split()[4].encode().decode("unicode_escape"))] = after.split()[0]
    for candidate in (folder, *folder.parents):
        if candidate in kinds:
            return folder.is_dir() and kinds[candidate] == "bpf"
    return False
