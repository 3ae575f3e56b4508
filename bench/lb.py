"""A ClusterIP with four backends, chosen in five ways: by the socket hooks, per packet (tc), by kube-proxy's iptables
rules, by an nftables map, and not at all (the pod IP). Then what one change of a large service costs, and Maglev.

Client and server are pods of one node (bench/lb_nodes.py), both on one CPU: across CPUs one measures wake-ups. Each way
is measured in turns, with 1, 1 000 and 10 000 services; the one that is asked stands in the middle of all rules.
"""

import secrets
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.kube_proxy import shown
from bench.lb_changes import measure_changes, measure_growth, measure_tables
from bench.lb_nodes import (
    BACKENDS,
    PORT,
    SERVER,
    Node,
    add_iptables,
    add_mesh,
    add_nftables,
    bpf_folder,
    frontend,
    measured,
)
from bench.report import BUILD, Aim, report, spread
from meshd.testbed import netns
from meshd.testbed.process import listens

SERVICES = (1, 1_000, 10_000)
ROUNDS = 5
SECONDS = 0.3
CLIENT_DEADLINE_S = 20
# Alone on that CPU as far as possible: whatever else runs on the machine waits.
CPU = ["chrt", "--fifo", "10", "taskset", "-c", "1"]
START_DEADLINE_S = 5.0
SOCKET, TC, IPTABLES, NFTABLES, DIRECT = "socket hook", "tc", "iptables", "nftables map", "pod IP"
ONE_CONNECTION = SERVICES[0]


@dataclass(frozen=True, slots=True)
class Way:
    """How a client reaches the backends."""

    name: str
    node: Node
    address: str
    port: int = 80
    cgroup: Path | None = None

    def measure(self, program: Path, what: str) -> float:
        """Operations a second. Raises CalledProcessError."""
        words = [*CPU, str(program), what, self.address, str(self.port), str(SECONDS)]
        if self.cgroup:
            words = ["sh", "-c", f"echo 0 > {self.cgroup}/cgroup.procs && exec {shlex.join(words)}"]
        done = subprocess.run(
            words,
            check=True,
            capture_output=True,
            text=True,
            timeout=CLIENT_DEADLINE_S,
            preexec_fn=netns.entering(self.node.namespace("client")),
        )
        return float(done.stdout)


def compiled() -> Path:
    BUILD.mkdir(parents=True, exist_ok=True)
    program = BUILD / "lb_client"
    source = Path(__file__).with_name("lb_client.c")
    subprocess.run(["cc", "-O2", "-Wall", "-o", str(program), str(source)], check=True)
    return program


@contextmanager
def serving(program: Path, node: Node) -> Iterator[None]:
    words = [*CPU, str(program), "serve", SERVER, str(PORT), str(BACKENDS)]
    server = subprocess.Popen(words, preexec_fn=netns.entering(node.namespace("server")))
    try:
        end = time.monotonic() + START_DEADLINE_S
        while not all(listens(server.pid, PORT + n) for n in range(BACKENDS)):
            if time.monotonic() > end or server.poll() is not None:
                raise RuntimeError(f"the server of {node.tag} does not listen")
            time.sleep(0.01)
        yield
    finally:
        server.kill()
        server.wait()


@contextmanager
def ways(program: Path, services: int) -> Iterator[list[Way]]:
    """Nodes with that many services, and the ways through them."""
    tag = f"lb{secrets.token_hex(2)}"
    address = str(frontend(measured(services)))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        bpffs = stack.enter_context(bpf_folder(Path(folder)))
        nodes = {}
        for name in ("mesh", "ipt", "nft"):
            nodes[name] = Node(f"{tag}-{name}")
            stack.enter_context(nodes[name].stack)
            nodes[name].create()
        mesh = add_mesh(nodes["mesh"], bpffs, services)
        rules = add_iptables(nodes["ipt"], services)
        if services == max(SERVICES):
            print("the iptables peer is set up with:", *shown(rules), sep="\n  ", file=sys.stderr)
        add_nftables(nodes["nft"], services)
        for node in nodes.values():
            stack.enter_context(serving(program, node))
        yield [
            Way(DIRECT, nodes["mesh"], SERVER, PORT),
            Way(SOCKET, nodes["mesh"], address, cgroup=mesh.cgroup),
            Way(TC, nodes["mesh"], address),
            Way(IPTABLES, nodes["ipt"], address),
            Way(NFTABLES, nodes["nft"], address),
        ]


Figures = dict[str, list[float]]


def interleaved(program: Path, those: list[Way], what: str) -> Figures:
    figures: Figures = {way.name: [] for way in those}
    for number in range(ROUNDS + 1):
        for way in those if number % 2 else reversed(those):
            figure = way.measure(program, what)
            if number:  # the first round warms up
                figures[way.name].append(figure)
    return figures


def ratios(figures: Figures, name: str, of: str) -> list[float]:
    return [a / b for a, b in zip(figures[name], figures[of], strict=True)]


def row(what: str, services: int, figures: Figures) -> dict[str, object]:
    medians = {name: f"{statistics.median(values):.0f}" for name, values in figures.items()}
    return {
        "what": what,
        "services": services,
        **medians,
        f"{SOCKET} / {DIRECT}": spread(ratios(figures, SOCKET, DIRECT)),
        f"{TC} / {IPTABLES}": spread(ratios(figures, TC, IPTABLES)),
    }


def aims(services: int, figures: Figures) -> list[Aim]:
    hook = statistics.median(ratios(figures, SOCKET, DIRECT))
    packet = statistics.median(ratios(figures, TC, IPTABLES))
    least = 2.0 if services >= SERVICES[-1] else 1.0
    found = [Aim(f"{services} services: {SOCKET} / {DIRECT}", "≥ 0.97", hook, hook >= 0.97)]
    if services in (SERVICES[0], SERVICES[-1]):
        found.append(Aim(f"{services} services: {TC} / {IPTABLES}", f"≥ {least:.0f}", packet, packet >= least))
    return found


def main() -> None:
    print("bench lb: about two minutes", file=sys.stderr, flush=True)
    program = compiled()
    rows: list[dict[str, object]] = []
    met: list[Aim] = []
    for services in SERVICES:
        with ways(program, services) as those:
            print(f"  {services} services", file=sys.stderr, flush=True)
            figures = interleaved(program, those, "connect")
            rows.append(row("connect, ask, close a second", services, figures))
            met += aims(services, figures)
            if services == ONE_CONNECTION:
                rows.append(row("ask on one connection a second", services, interleaved(program, those, "ask")))
    report("lb", rows, met)
    report("lb_changes", measure_changes(), [])
    growth = measure_growth()
    flat = float(str(list(growth[-1].values())[-1]).split()[0])
    report("lb_growth", growth, [Aim("60 000 services / 1 000", "≤ 1.2", flat, flat <= 1.2)])
    report("lb_maglev", measure_tables(), [])


if __name__ == "__main__":
    main()
