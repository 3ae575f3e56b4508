"""Below which nobody gets: the CPU seconds of encrypting and sending so many bytes to so many connections, and nothing
else. One column of `bench proxy_fanout`.

python -m bench.tls_floor CERTIFICATES CONNECTIONS BYTES TIMES_PER_SECOND SECONDS

CERTIFICATES is the folder of a CA; BYTES go to every connection each time, as one TLS record for each 16 KiB.
"""

import os
import selectors
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

from certs.pair import load_pair
from etcdproxy.http2.tls import server_context

ROOT = Path(__file__).parents[1]
_CHUNK = 1 << 20


def read(address: tuple[str, int], certificate: Path, connections: int) -> None:
    """Connects, then throws away what comes, as it came."""
    context = ssl.create_default_context(cafile=str(certificate / "ca.crt"))
    context.check_hostname = False
    context.load_cert_chain(certificate / "tls.crt", certificate / "tls.key")
    readers = [context.wrap_socket(socket.create_connection(address)) for _ in range(connections)]
    print("ready", flush=True)
    selector = selectors.DefaultSelector()
    for reader in readers:
        selector.register(reader, selectors.EVENT_READ)
    buffer = bytearray(_CHUNK)
    while selector.get_map():
        for key, _ in selector.select():
            if not os.readv(key.fd, [buffer]):
                selector.unregister(key.fileobj)


def write(readers: list[ssl.SSLSocket], data: bytes, rate: int, seconds: float) -> float:
    """CPU seconds of this process."""
    before, began = time.process_time(), time.monotonic()
    for turn in range(int(rate * seconds)):
        time.sleep(max(0.0, began + turn / rate - time.monotonic()))
        for reader in readers:
            reader.send(data)
    return time.process_time() - before


def main(certificates: Path, connections: int, size: int, rate: int, seconds: float) -> None:
    server = certificates / "server"
    context = server_context(load_pair(server / "tls.crt", server / "tls.key", server / "ca.crt"))
    with socket.create_server(("127.0.0.1", 0), backlog=connections) as listener:
        host, port = listener.getsockname()
        command = [sys.executable, "-m", "bench.tls_floor", "read", host, str(port)]
        command += [str(certificates / "remote-c2"), str(connections)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            accepted = (listener.accept()[0] for _ in range(connections))
            readers = [context.wrap_socket(reader, server_side=True) for reader in accepted]
            assert process.stdout is not None
            process.stdout.readline()
            for reader in readers:
                reader.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            print(write(readers, os.urandom(size), rate, seconds), flush=True)
        finally:
            process.kill()
            process.communicate()


if __name__ == "__main__":
    if sys.argv[1] == "read":
        read((sys.argv[2], int(sys.argv[3])), Path(sys.argv[4]), int(sys.argv[5]))
    else:
        folder, connections, size, rate, seconds = sys.argv[1:]
        main(Path(folder), int(connections), int(size), int(rate), float(seconds))
