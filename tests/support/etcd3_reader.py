"""A reader on python-etcd3, as a process of its own: the library's watch thread ends only with its process.

Reads commands from stdin, a JSON list per line, calls the client's method of that name and prints the answer as JSON.
`["watch_prefix", PREFIX, COUNT]` first prints "watching", then that many events.
"""

import json
import os
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import meshd.agent.etcd.etcd3_client  # noqa: F401 — its stubs, before the library is imported

# isort: split
import etcd3
import grpc


def main(address: str, folder: Path) -> None:
    host, port = address.split(":")
    files = {"ca_cert": "ca.crt", "cert_cert": "tls.crt", "cert_key": "tls.key"}
    tls = {option: str(folder / name) for option, name in files.items()}
    client = etcd3.client(host=host, port=int(port), timeout=10, **tls)
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        try:
            show(answer(client, method, *arguments))
        except etcd3.Etcd3Exception as error:
            show({"error": type(error).__name__})
        except grpc.RpcError as error:
            show({"error": str(error)})
    os._exit(0)  # past the watch thread


def answer(client: Any, method: str, *arguments: Any) -> Any:
    match method:
        case "get":
            value, metadata = client.get(*arguments)
            return value and [value.decode(), metadata.mod_revision]
        case "get_prefix":
            prefix, options = arguments
            return [[metadata.key.decode(), value.decode()] for value, metadata in client.get_prefix(prefix, **options)]
        case "watch_prefix":
            prefix, count = arguments
            events, cancel = client.watch_prefix(prefix)
            show("watching")
            found = [[type(event).__name__, event.key.decode(), event.mod_revision] for event in islice(events, count)]
            cancel()
            return found
        case _:
            return getattr(client, method)(*arguments)


def show(result: Any) -> None:
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
