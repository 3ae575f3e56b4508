"""Compile, load and pin the programs: the body of the loader's child process, and the only importer of bcc.

bcc and LLVM take 100 MB that stay, so they live in a process that ends. Reads a request from standard input and
writes an answer to standard output, both JSON; compiler and verifier write to standard error.
"""

import ctypes
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datapath import bpf
from datapath.hooks import HOOKS
from datapath.layout import MAGLEV_PATTERN, MAPS, MapType
from datapath.source import FOLDER

TC_PROGRAMS = ("from_pod", "to_pod", "from_tunnel", "to_tunnel", "from_network", "policy_out", "policy_in")


@dataclass(frozen=True, slots=True)
class Request:
    """Programs are pinned into `folder`, which exists."""

    text: str
    flags: list[str]
    folder: str


@dataclass(frozen=True, slots=True)
class Failure:
    program: str
    reason: str
    remedy: str


class _Refused(Exception):
    def __init__(self, program: str, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.failure = Failure(program, reason, remedy)


def main() -> None:
    try:
        _load(Request(**json.load(sys.stdin)))
    except _Refused as refused:
        json.dump(asdict(refused.failure), sys.stdout)
    else:
        json.dump(None, sys.stdout)


def _load(request: Request) -> None:
    os.environ["BCC_KERNEL_SOURCE"] = str(FOLDER)
    try:
        from bcc import BPF
    except ImportError as error:
        remedy = "install Debian's python3-bpfcc (PyPI's 'bcc' is something else)"
        raise _Refused("bcc", f"cannot be imported: {error}", remedy) from error
    try:
        module = BPF(text=request.text, cflags=request.flags)
    except Exception as error:
        remedy = "the messages below name file and line; EPERM or ENOMEM there: run as root, allow more locked memory"
        raise _Refused("mesh.bpf.c", str(error), remedy) from error
    _check_layout(module)
    folder = Path(request.folder)
    for name in TC_PROGRAMS:
        _load_program(module, name, BPF.SCHED_CLS, -1, folder)
    for name, attach_type in HOOKS.items():
        _load_program(module, name, BPF.CGROUP_SOCK_ADDR, attach_type, folder)


def _check_layout(module: Any) -> None:
    """What clang made of the structs must be what layout.py says."""
    for name, spec in MAPS.items():
        table = module[name]
        per_cpu = spec.kind is MapType.PERCPU_ARRAY  # bcc makes it an array with an element per CPU
        leaf = table.Leaf._type_ if per_cpu else table.Leaf
        found = (ctypes.sizeof(table.Key), ctypes.sizeof(leaf))
        if name != MAGLEV_PATTERN and found != (spec.key_size, spec.value_size):
            reason = f"key and value have {found} bytes, datapath/layout.py says {spec.key_size, spec.value_size}"
            raise _Refused(name, reason, "make bpf/layout.h and layout.py agree, and raise LAYOUT_VERSION")


def _load_program(module: Any, name: str, kind: int, attach_type: int, folder: Path) -> None:
    try:
        function = module.load_func(name, kind, None, attach_type)
    except Exception as error:
        remedy = f"the verifier's words are below; this kernel ({os.uname().release}) may be older than 5.18"
        raise _Refused(name, str(error), remedy) from error
    try:
        bpf.pin_object(function.fd, folder / name)
    except OSError as error:
        raise _Refused(name, f"cannot be pinned: {error}", "check that the bpffs is writable") from error


if __name__ == "__main__":
    main()
