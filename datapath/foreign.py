"""Finds other socket load balancers: programs that are not ours at the hooks that choose a backend. Two of them at one
hook both translate, and which one wins depends on who was first.
"""

import os
from pathlib import Path

from datapath import bpf
from datapath.hooks import HOOKS

_CHOOSING = ("connect4", "connect6", "sendmsg4", "sendmsg6")
_KNOWN = {"cil_sock": "Cilium's socket load balancer (kube-proxy replacement)", "cali_": "Calico's eBPF dataplane"}


def foreign_programs(links: Path, cgroup: Path) -> tuple[str, ...]:
    """A sentence for each program at the cgroup's hooks, or above them, that is not in the links pinned in `links`.

    Raises OSError.
    """
    found: dict[str, list[str]] = {}
    cgroup_fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for hook in _CHOOSING:
            own = _program(links / hook)
            for number in bpf.attached_programs(cgroup_fd, HOOKS[hook]):
                if number != own:
                    found.setdefault(_describe(bpf.program_name(number)), []).append(hook)
    finally:
        os.close(cgroup_fd)
    return tuple(f"{name} is attached to {', '.join(hooks)} of {cgroup} too" for name, hooks in sorted(found.items()))


def _program(link: Path) -> int:
    if not link.exists():
        return 0
    with bpf.opened(link) as fd:
        return bpf.link_info(fd).program_id


def _describe(name: str) -> str:
    known = next((text for prefix, text in _KNOWN.items() if name.startswith(prefix)), "")
    return f"{known} ({name})" if known else f"another socket program ({name})"
