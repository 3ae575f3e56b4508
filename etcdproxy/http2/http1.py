"""The one thing that is asked in HTTP/1.1: `GET /version`, by `cilium-dbg troubleshoot clustermesh`. Pure."""

import json

MAX_REQUEST_BYTES = 8 << 10
_END = b"\r\n\r\n"


def answer_request(request: bytes, version: str | None) -> bytes | None:
    """The whole answer, after which the connection ends; None as long as the request is not complete.

    `version` is etcd's, empty if it is not known yet, None if this reader may not know.
    """
    if _END not in request:
        return None if len(request) <= MAX_REQUEST_BYTES else _answer("431 Request Header Fields Too Large", {})
    words = request.split(b"\r\n", 1)[0].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return _answer("400 Bad Request", {"error": "meshd: this port speaks gRPC; in HTTP/1.1 only GET /version"})
    method, path, _ = words
    if path.split(b"?")[0] != b"/version":
        return _answer("404 Not Found", {"error": "meshd: in HTTP/1.1 there is only GET /version"})
    if method != b"GET":
        return _answer("405 Method Not Allowed", {"error": "meshd: only GET"})
    if version is None:
        return _answer("403 Forbidden", {"error": "etcdserver: permission denied"})
    if not version:
        return _answer("503 Service Unavailable", {"error": "meshd: this proxy has not read its etcd yet"})
    minor = ".".join(version.split(".")[:2])
    return _answer("200 OK", {"etcdserver": version, "etcdcluster": f"{minor}.0"})


def _answer(status: str, content: dict[str, str]) -> bytes:
    body = json.dumps(content, separators=(",", ":")).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body
