"""Listing 200 000 ip keys from our proxy (mTLS) and from etcd itself (without), pages of 256, 1 000 and 20 000.

One reader, and ten at once. etcd walks the whole rest of the range for every page and would need minutes for the small
ones: with pages below 20 000 it lists a tenth of the keys, and ten times that is an estimate of what it needs, on the
low side because its walks are shorter.
Then the proxy's memory per key, and how long it takes to start with 500 000 keys.
"""

import json
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from bench.etcd_peers import Peers, cpu_s, rss_mb, running
from bench.report import Aim, report
from certs.names import server_name
from meshd.socket import SocketError
from tests.support.etcd import Etcd

KEYS, MANY_KEYS = 200_000, 500_000
PAGES = [256, 1_000, 20_000]
READERS = [1, 10]
PREFIX = "cilium/state/ip/v1/default/"
PUTS = 120  # in one transaction, etcd's limit is 128
SAMPLE = "10.9"  # keys below it are a tenth of all
RECORD = '{"IP":"%s","Mask":null,"HostIP":"172.18.1.11","ID":65540,"Key":0,"Metadata":"","K8sNamespace":"default"}'
START_DEADLINE_S = 120.0
ROOT = Path(__file__).parents[1]


def fill(etcd: Etcd, first: int, end: int) -> None:
    for start in range(first, end, PUTS):
        hosts = [f"10.{n % 10}.{n // 2560}.{n // 10 % 256}" for n in range(start, min(start + PUTS, end))]
        etcd.put_all({PREFIX + host: RECORD % host for host in hosts})


def list_all(peers: Peers, ours: bool, page: int, number: int, prefix: str) -> dict[str, float]:
    """Seconds until the last of so many readers has all; CPU seconds of the proxy, of etcd and of the readers."""
    target = peers.proxy.address if ours else peers.etcd.address
    secure = [str(peers.certificate), server_name("c1")] if ours else []
    command = [sys.executable, "-m", "bench.range_reader", prefix, str(page), target, *secure]
    with ExitStack() as stack:
        readers: list[Any] = []
        for _ in range(number):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            readers.append(process)
        for process in readers:
            process.stdout.readline()
        cpu, etcd_cpu = cpu_s(peers.proxy.pid), cpu_s(peers.etcd.pid)
        for process in readers:
            process.stdin.write("go\n")
            process.stdin.flush()
        results = [json.loads(process.stdout.readline()) for process in readers]
    keys = {result["keys"] for result in results}
    expected = KEYS if prefix == PREFIX else KEYS // 10
    if keys != {expected}:
        raise RuntimeError(f"the readers saw {keys} keys, not {expected}")
    return {
        "s": max(result["s"] for result in results),
        "proxy": cpu_s(peers.proxy.pid) - cpu,
        "etcd": cpu_s(peers.etcd.pid) - etcd_cpu,
        "readers": sum(result["cpu_s"] for result in results),
    }


def measure(peers: Peers, page: int, number: int) -> tuple[dict[str, object], Aim]:
    mine = list_all(peers, True, page, number, PREFIX)
    sampled = page < 20_000
    prefix, factor = (PREFIX + SAMPLE, 10) if sampled else (PREFIX, 1)
    theirs = list_all(peers, False, page, number, prefix)
    row: dict[str, object] = {
        "readers": number,
        "page": page,
        "meshd s": mine["s"],
        "etcd s": theirs["s"] * factor,
        "etcd's": "a tenth × 10" if sampled else "all",
        "meshd keys/s": round(KEYS * number / mine["s"]),
        "proxy CPU s": mine["proxy"],
        "etcd CPU s in ours": mine["etcd"],
        "readers' CPU s": mine["readers"],
    }
    return row, Aim(
        f"{number} × pages of {page}: seconds",
        f"≤ {theirs['s'] * factor:.2f}",
        mine["s"],
        mine["s"] <= theirs["s"] * factor,
    )


def start_up(peers: Peers) -> float:
    """Seconds from the start of the process until it serves all."""
    peers.proxy.stop()
    began = time.monotonic()
    peers.proxy.start()
    while time.monotonic() - began < START_DEADLINE_S:
        with suppress(SocketError):
            if peers.proxy.status()["upstream"]["state"] == "synced":
                return time.monotonic() - began
        time.sleep(0.05)
    raise RuntimeError(f"the proxy did not start within {START_DEADLINE_S} s")


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def main() -> None:
    print("bench proxy_list: about two minutes", file=sys.stderr, flush=True)
    rows: list[dict[str, object]] = []
    aims: list[Aim] = []
    with running() as peers:
        empty = rss_mb(peers.proxy.pid)
        fill(peers.etcd, 0, KEYS)
        say(f"{KEYS} keys; the proxy starts with them in {start_up(peers):.1f} s")
        per_key = (rss_mb(peers.proxy.pid) - empty) * 1e6 / KEYS
        for number in READERS:
            for page in PAGES:
                row, aim = measure(peers, page, number)
                rows.append(row)
                aims.append(aim)
                say(", ".join(f"{name}: {value}" for name, value in row.items()))
        fill(peers.etcd, KEYS, MANY_KEYS)
        seconds = start_up(peers)
    load = max(float(str(row["etcd CPU s in ours"])) for row in rows)
    one = {row["page"]: float(str(row["meshd s"])) for row in rows if row["readers"] == 1}
    aims += [
        Aim("etcd's CPU s while ours is listed", "≤ 0.1", load, load <= 0.1),
        Aim(
            "1 × pages of 256 to pages of 20 000: times",
            "not quadratic: ≤ 10",
            one[256] / one[20_000],
            one[256] <= 10 * one[20_000],
        ),
        Aim("memory per key in bytes", "told", per_key, True),
        Aim(f"start with {MANY_KEYS} keys in s", "told", seconds, True),
    ]
    report("proxy_list", rows, aims)


if __name__ == "__main__":
    main()
