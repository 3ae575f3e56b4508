"""A load program for pods: requests to one address, a line of JSON for each, on standard output. Only the standard
library, as it is started by its file name inside a pod.

    load.py HOST PORT --requests 400 --concurrency 16
    load.py HOST PORT --seconds 5 --rate 100 --hold 4      # and four long connections that echo all the time

A line: {"at": monotonic seconds, "seconds": how long it took, "pod": "cluster1/a" or null, "peer": the address that the
server saw, "error": null or a reason}; lines of long connections have "hold": number of the connection.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator

TIMEOUT_S = 3.0
ECHO_INTERVAL_S = 0.05
Line = dict[str, object]


async def request(host: str, port: int, size: int) -> Line:
    """One connection, one GET of an answer padded to `size` bytes."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET /{size} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"answered {head[:40]!r}")
        answer = json.loads(body)
        return {"pod": f"{answer['cluster']}/{answer['pod']}", "peer": answer["peer"], "bytes": len(body)}
    finally:
        writer.close()


async def timed_request(arguments: argparse.Namespace) -> Line:
    at = time.monotonic()
    line: Line = {"pod": None, "peer": None, "error": None}
    try:
        line |= await asyncio.wait_for(request(arguments.host, arguments.port, arguments.size), TIMEOUT_S)
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        line["error"] = str(error) or type(error).__name__
    return {"at": at, "seconds": time.monotonic() - at, **line}


async def worker(arguments: argparse.Namespace, numbers: Iterator[int], start: float) -> None:
    for number in numbers:
        if arguments.rate:
            await asyncio.sleep(max(0.0, start + number / arguments.rate - time.monotonic()))
        print(json.dumps(await timed_request(arguments)), flush=True)


async def hold(arguments: argparse.Namespace, number: int, end: float) -> None:
    """A connection that stays open until `end`; the first error ends it, and is told."""
    pod, error, echoes, at = None, None, 0, time.monotonic()
    try:
        reader, writer = await asyncio.open_connection(arguments.host, arguments.port)
        while time.monotonic() < end:
            word = f"{number}.{echoes}"
            writer.write(f"{word}\n".encode())
            answer = (await asyncio.wait_for(reader.readline(), TIMEOUT_S)).decode().split()
            if answer[1:] != [word]:
                raise ConnectionError(f"echo of {word} is {answer}")
            pod, echoes = answer[0], echoes + 1
            await asyncio.sleep(ECHO_INTERVAL_S)
        writer.close()
    except OSError as problem:
        error = str(problem) or type(problem).__name__
    line = {"hold": number, "at": at, "seconds": time.monotonic() - at, "pod": pod, "echoes": echoes, "error": error}
    print(json.dumps(line), flush=True)


async def main(arguments: argparse.Namespace) -> None:
    start = time.monotonic()
    total = arguments.requests or int(arguments.seconds * arguments.rate)
    numbers = iter(range(total))
    async with asyncio.TaskGroup() as tasks:
        for number in range(arguments.hold):
            tasks.create_task(hold(arguments, number, start + arguments.seconds))
        for _ in range(min(arguments.concurrency, total)):
            tasks.create_task(worker(arguments, numbers, start))


def parse_arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Requests to one address from inside a pod.")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--requests", type=int, default=0, help="how many in all")
    parser.add_argument("--seconds", type=float, default=0.0, help="or: for how long, with --rate")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second; 0: as fast as they are answered")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--hold", type=int, default=0, help="long connections beside the requests")
    parser.add_argument("--size", type=int, default=0, help="bytes that each answer is padded to")
    return parser.parse_args(words)


if __name__ == "__main__":
    asyncio.run(main(parse_arguments(sys.argv[1:])))
