"""The programs as bcc compiles them, for tests/support/ebpf.py. bcc lives in a child process, as the loader's does."""

import json
import os
import subprocess
import sys
from pathlib import Path

from datapath.compile import TC_PROGRAMS
from datapath.layout import MAPS
from datapath.source import FOLDER, read_source
from tests.support.ebpf import Code


def compiled(bpffs: Path) -> dict[str, Code]:
    """The tc programs by name. `bpffs` is mounted, and ours; as root."""
    child = subprocess.run(
        [sys.executable, "-m", "tests.support.bytecode", str(bpffs)], capture_output=True, text=True, check=False
    )
    assert not child.returncode, child.stderr
    answer = json.loads(child.stdout)
    maps = {int(number): name for number, name in answer["maps"].items()}
    return {name: Code(bytes.fromhex(text), maps) for name, text in answer["programs"].items()}


def main(bpffs: Path) -> None:
    source = read_source(bpffs, {})
    os.environ["BCC_KERNEL_SOURCE"] = str(FOLDER)
    from bcc import BPF

    module = BPF(text=source.text, cflags=list(source.flags))
    programs = {name: module.dump_func(name.encode()).hex() for name in TC_PROGRAMS}
    json.dump({"programs": programs, "maps": {module[name].map_fd: name for name in MAPS}}, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
