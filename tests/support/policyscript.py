"""Scripts about policy: who there is, what the policies say, and which flows pass. Run on the model and as packets.

    cluster cluster1                                the local one; `cluster cluster1 any`: selectors mean every cluster
    namespace prod env=prod                         labels of a namespace, in every cluster
    pod web prod/cluster1 10.0.0.1 app=web http=TCP/8080 @robot       a service account, not `default`
    node host 172.18.1.11                           this node; every other node is `remote-node`
    world google 8.8.8.8
    policy
      {YAML, indented}
    expect TCP/80
      web -> db: pass                               names may be `*`, and `x,y`
      db -> web: drop
    invalid prod/broken egress[0].toFQDNs           the policy is invalid, and says so of this field

Every flow that a block does not name is checked too: the oracle says what becomes of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from policy.ports import ICMP, ICMPV6, PROTOCOLS
from tests.support.policy_oracle import Oracle, Party

FOLDER = Path(__file__).parents[1] / "scripts" / "policy"
NUMBERS = {**PROTOCOLS, "ICMP": ICMP, "ICMPv6": ICMPV6}


@dataclass(frozen=True, slots=True)
class Flow:
    source: str
    destination: str
    protocol: str
    port: int
    passes: bool
    line: int


@dataclass(slots=True)
class PolicyScript:
    name: str
    cluster: str = "cluster1"
    default_local: bool = True
    parties: dict[str, Party] = field(default_factory=dict)
    policies: list[dict[str, Any]] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    invalid: list[tuple[str, str]] = field(default_factory=list)

    @property
    def oracle(self) -> Oracle:
        return Oracle(self.cluster, tuple(self.policies), self.default_local)


def read_script(path: Path) -> PolicyScript:
    """Raises ValueError with the line for what it does not understand."""
    script = PolicyScript(path.stem)
    namespaces: dict[str, dict[str, str]] = {}
    for number, words, block in _statements(path.read_text()):
        match words:
            case ["cluster", name, *rest]:
                script.cluster, script.default_local = name, rest != ["any"]
            case ["namespace", name, *labels]:
                namespaces[name] = dict(label.split("=", 1) for label in labels)
            case ["pod", name, place, address, *labels]:
                script.parties[name] = _pod(place, address, labels, namespaces)
            case ["node", name, address]:
                script.parties[name] = Party(address, "host" if name == "host" else "remote-node")
            case ["world", name, address]:
                script.parties[name] = Party(address, "world")
            case ["policy"]:
                script.policies.append(yaml.safe_load("\n".join(line for _, line in block)))
            case ["expect", ports]:
                protocol, _, port = ports.partition("/")
                for at, line in (said for said in block if not said[1].startswith("#")):
                    script.flows += _flows(script, line, protocol, int(port), at)
            case ["invalid", policy, place]:
                script.invalid.append((policy, place))
            case _:
                raise ValueError(f"{path.name}:{number}: {' '.join(words)}")
    return script


def _statements(text: str) -> Iterator[tuple[int, list[str], list[tuple[int, str]]]]:
    head: tuple[int, list[str]] | None = None
    block: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(" "):
            block.append((number, line[2:]))
        elif line.strip() and not line.startswith("#"):
            if head:
                yield *head, block
            head, block = (number, line.split()), []
    if head:
        yield *head, block


def _pod(place: str, address: str, words: list[str], namespaces: dict[str, dict[str, str]]) -> Party:
    namespace, _, cluster = place.partition("/")
    labels: dict[str, str] = {}
    ports: dict[tuple[str, str], int] = {}
    account = next((word[1:] for word in words if word.startswith("@")), "default")
    for word in words:
        if word.startswith("@"):
            continue
        key, _, value = word.partition("=")
        protocol, slash, number = value.partition("/")
        if slash and protocol in PROTOCOLS:
            ports[protocol, key] = int(number)
        else:
            labels[key] = value
    return Party(address, "pod", cluster, namespace, labels, namespaces.get(namespace, {}), ports, account)


def _flows(script: PolicyScript, line: str, protocol: str, port: int, number: int) -> Iterator[Flow]:
    ends, _, verdict = line.partition(":")
    sources, _, destinations = ends.partition("->")
    if verdict.strip() not in ("pass", "drop"):
        raise ValueError(f"{script.name}:{number}: {line}")
    for source in _names(script, sources):
        for destination in _names(script, destinations):
            if source != destination:
                yield Flow(source, destination, protocol, port, verdict.strip() == "pass", number)


def _names(script: PolicyScript, text: str) -> list[str]:
    return list(script.parties) if text.strip() == "*" else [name.strip() for name in text.split(",")]
