"""Runs in a pod: asks one address without pause and prints the monotonic time at which another pod answers.

    first_answer.py 30.1.1.1 80

Only the standard library, as it is started by its file name inside a pod.
"""

import json
import socket
import sys
import time

PAUSE_S = 0.0005
TIMEOUT_S = 0.02  # a SYN that is lost is sent again after 1 s: a new connection tells sooner that the way is open


def ask(host: str, port: int) -> str:
    """The name of the pod that answers. Raises OSError or ValueError."""
    with socket.create_connection((host, port), timeout=TIMEOUT_S) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["pod"])


def main(host: str, port: int) -> None:
    last = ""
    while True:
        try:
            pod = ask(host, port)
        except (OSError, ValueError):
            time.sleep(PAUSE_S)
            continue
        if pod != last:
            print(time.monotonic_ns(), pod, flush=True)
            last = pod
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
