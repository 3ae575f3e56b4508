"""Datagrams a second through a way: bench/packet_rate.c at both ends, bursts that are acknowledged.

iperf3 as fast as it can is no measure of it here: on one CPU the sender fills the receiver's socket buffer before that
one gets a turn, and a third to a half of what arrived is lost there, more or less of it from run to run.
"""

import subprocess
import time
from pathlib import Path

from bench.report import BUILD
from bench.tunnel import START_DEADLINE_S, Way

PORT = 5401
SIZE = 64


def compiled() -> Path:
    """The program of both ends. Raises CalledProcessError."""
    BUILD.mkdir(parents=True, exist_ok=True)
    program = BUILD / "packet_rate"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["cc", "-O2", "-Wall", "-o", str(program), str(source)], check=True)
    return program


def packet_rate(way: Way, seconds: float) -> float:
    """Thousands of 64-byte datagrams a second, by the median burst. Raises RuntimeError with what the client said."""
    program = str(compiled())
    serving = way.server(program, "serve", str(PORT), str(SIZE))
    try:
        end = time.monotonic() + START_DEADLINE_S
        while not _receives(serving.pid):
            if time.monotonic() > end or serving.poll() is not None:
                raise RuntimeError(f"{way.name}: {program} serve does not receive on {PORT}")
            time.sleep(0.01)
        asking = way.client(program, "send", way.address, str(PORT), str(SIZE), str(seconds))
        output, errors = asking.communicate(timeout=seconds + START_DEADLINE_S)
    finally:
        serving.kill()
        serving.communicate()
    if asking.returncode:
        raise RuntimeError(f"{way.name}: {program} send: {errors.strip()}")
    return float(output) / 1e3


def _receives(pid: int) -> bool:
    """Does the network namespace of a process have a UDP socket bound to the port?"""
    lines = Path(f"/proc/{pid}/net/udp").read_text().splitlines()[1:]
    return any(int(line.split()[1].rpartition(":")[2], 16) == PORT for line in lines)
