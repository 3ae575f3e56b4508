"""What it costs that the reason of a refusal is visible: our proxy's handshakes beside those of gRPC's own server.

Readers connect one after the other, shake hands, wait for the first byte and leave: with a good certificate and with
one that has expired. Both servers want certificates of the same CA, both run in Python; gRPC's logs all that it can.

In the table: CPU milliseconds of the server for each handshake; milliseconds until the reader has its first byte or
knows that it gets none; what the reader sees of the reason, and whether the server's log has it.
"""

import asyncio
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio

from bench.etcd_peers import cpu_s
from bench.report import Aim, report
from certs.pair import load_pair
from tests.support.etcd import Etcd
from tests.support.proxy import Proxy

HANDSHAKES = 300
ROOT = Path(__file__).parents[1]
SETTLE_S = 0.3


async def serve_grpc(folder: Path, authorities: Path) -> None:
    """gRPC's own server, without any method, until it is killed."""
    pair = load_pair(folder / "tls.crt", folder / "tls.key", authorities)
    credentials = grpc.ssl_server_credentials(
        [(pair.key, pair.certificate)], pair.authorities, require_client_auth=True
    )
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


@contextmanager
def grpc_server(proxy: Proxy, log: Path) -> Iterator[tuple[str, int]]:
    command = [sys.executable, "-m", "bench.proxy_handshakes", str(proxy.server), str(proxy.certs / "ca/ca.crt")]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT)
        try:
            assert process.stdout is not None
            yield f"127.0.0.1:{int(process.stdout.readline())}", process.pid
        finally:
            process.kill()
            process.communicate()


def shake_hands(address: str, context: ssl.SSLContext) -> str:
    """Until the first byte; empty, or what is seen of the reason."""
    host, _, port = address.rpartition(":")
    try:
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            context.wrap_socket(plain) as reader,
        ):
            return "" if reader.recv(1) else "the connection ends"
    except ssl.SSLError as error:
        return (error.reason or "broken TLS").replace("_", " ").lower()
    except OSError as error:
        return str(error.strerror).lower()


def measure(name: str, kind: str, address: str, pid: int, certificate: Path, log: Path) -> dict[str, object]:
    context = ssl.create_default_context(cafile=str(certificate / "ca.crt"))
    context.check_hostname = False
    context.load_cert_chain(certificate / "tls.crt", certificate / "tls.key")
    context.set_alpn_protocols(["h2"])
    shake_hands(address, context)  # the first one loads what is loaded once
    said, before = log.stat().st_size, cpu_s(pid)
    seen, times = set(), []
    for _ in range(HANDSHAKES):
        began = time.perf_counter()
        seen.add(shake_hands(address, context))
        times.append(time.perf_counter() - began)
    time.sleep(SETTLE_S)
    words = log.read_bytes()[said:].decode()
    return {
        "server": name,
        "certificate": kind,
        "CPU ms": round((cpu_s(pid) - before) / HANDSHAKES * 1e3, 2),
        "ms": round(statistics.median(times) * 1e3, 2),
        "the reader sees": ", ".join(sorted(seen)) or "its first byte",
        "reason in the log": "yes" if "expired" in words else "",
    }


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory(prefix="meshd-bench-") as name:
        directory = Path(name)
        etcd = Etcd(directory / "etcd")
        proxy = Proxy(directory / "proxy", etcd.url)
        certificates = {
            "good": proxy.certificate("remote-c2"),
            "expired": proxy.certificate("remote-c3", age=timedelta(days=100)),
        }
        try:
            etcd.start()
            proxy.start()
            proxy.await_synced()
            with grpc_server(proxy, log := directory / "grpc.log") as (address, pid):
                for kind, certificate in certificates.items():
                    rows.append(measure("meshd proxy", kind, proxy.address, proxy.pid, certificate, proxy.log))
                    rows.append(measure("gRPC's own", kind, address, pid, certificate, log))
        finally:
            proxy.kill()
            etcd.kill()
    cost = {(row["server"], row["certificate"]): float(str(row["CPU ms"])) for row in rows}
    ours = [row for row in rows if row["server"] == "meshd proxy" and row["certificate"] == "expired"]
    told = all("expired" in str(row["the reader sees"]) and row["reason in the log"] for row in ours)
    extra = cost["meshd proxy", "expired"] - cost["meshd proxy", "good"]
    aims = [
        Aim("the reason is visible on both sides", "always", "yes" if told else "no", told),
        Aim("a refusal beside a handshake that succeeds: CPU ms more", "told", extra, True),
    ]
    report("proxy_handshakes", rows, aims)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        os.environ.setdefault("GRPC_VERBOSITY", "INFO")
        asyncio.run(serve_grpc(Path(sys.argv[1]), Path(sys.argv[2])))
    else:
        main()
