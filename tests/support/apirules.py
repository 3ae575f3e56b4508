"""What an API server refuses of a change to an EndpointSlice, after Kubernetes' documentation and validation."""

from typing import Any

Document = dict[str, Any]
Refusal = tuple[int, str] | None


def refusal(method: str, document: Document, current: Document) -> Refusal:
    """Status and message; `current` is {} if there is no such object."""
    metadata, there = document.get("metadata", {}), current.get("metadata", {})
    if method == "POST":
        if current:
            return 409, "already exists"
        return (400, "resourceVersion should not be set") if "resourceVersion" in metadata else _invalid(document)
    if not current:
        return 404, "not found"
    asked = document.get("preconditions", {}) if method == "DELETE" else metadata if method == "PUT" else {}
    for name in ("uid", "resourceVersion"):
        if asked.get(name) is not None and asked[name] != there.get(name):
            return 409, f"{name}: the object has been modified"
    if method == "PUT":
        return _invalid(document) if document["addressType"] == current["addressType"] else (422, "is immutable")
    return None


def _invalid(document: Document) -> Refusal:
    endpoints, ports = document["endpoints"], document["ports"]
    if len(endpoints) > 1000 or len(ports) > 100:
        return 422, "too many endpoints or ports"
    if any(endpoint.get("hostname") == "" or not 1 <= len(endpoint["addresses"]) <= 100 for endpoint in endpoints):
        return 422, "an endpoint is invalid"
    if len({port["name"] for port in ports}) < len(ports) or any(
        port["name"] != port["name"].lower() for port in ports
    ):
        return 422, "ports must have lower-case names of their own"
    return None
