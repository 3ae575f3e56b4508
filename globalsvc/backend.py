"""A backend, and what its cluster says of it."""

from dataclasses import dataclass

from wire.local import BackendState
from wire.records import IPAddress


@dataclass(frozen=True, slots=True)
class Backend:
    """A pod's address behind a service. Equal ones are one backend, whatever services they stand behind."""

    address: IPAddress
    port: int
    protocol: str
    cluster: str


@dataclass(frozen=True, slots=True)
class Offer:
    """A backend as its cluster offers it: under which port names (none: unnamed), in which state, on which node (""
    for other clusters' ones) and for which zones (None: it carries no hints).
    """

    backend: Backend
    names: frozenset[str]
    state: BackendState = "active"
    is_local: bool = False
    node: str = ""
    for_zones: frozenset[str] | None = None
