"""cilium.io/v2 CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy: identities, CIDRs, entities, ports, ICMP."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from identity.numbering import Reserved
from policy.fields import Fields, InvalidPolicy, is_number, parse_excepts, parse_network, parse_port_name
from policy.model import Direction, Rule, Section
from policy.ports import ICMP, ICMPV6, LAST_PORT, PROTOCOLS, PortRange
from policy.scope import Scope, read_requirements
from policy.selector import WORLD_LABEL, IPNetwork, Selector, equals, exists, reserved_labels, select_cidr
from wire.labels import CLUSTER_LABEL

_SECTIONS = (
    ("ingress", Direction.INGRESS, False),
    ("ingressDeny", Direction.INGRESS, True),
    ("egress", Direction.EGRESS, False),
    ("egressDeny", Direction.EGRESS, True),
)
_CLUSTER_ENTITY = (
    Reserved.HOST,
    Reserved.REMOTE_NODE,
    Reserved.INIT,
    Reserved.INGRESS,
    Reserved.HEALTH,
    Reserved.UNMANAGED,
    Reserved.KUBE_APISERVER,
)
_ICMP_TYPES = {
    "IPv4": {
        "EchoReply": 0,
        "DestinationUnreachable": 3,
        "Redirect": 5,
        "Echo": 8,
        "EchoRequest": 8,
        "RouterAdvertisement": 9,
        "RouterSelection": 10,
        "TimeExceeded": 11,
        "ParameterProblem": 12,
        "Timestamp": 13,
        "TimestampReply": 14,
        "Photuris": 40,
        "ExtendedEchoRequest": 42,
        "ExtendedEchoReply": 43,
    },
    "IPv6": {
        "DestinationUnreachable": 1,
        "PacketTooBig": 2,
        "TimeExceeded": 3,
        "ParameterProblem": 4,
        "EchoRequest": 128,
        "EchoReply": 129,
        "RouterSolicitation": 133,
        "RouterAdvertisement": 134,
        "NeighborSolicitation": 135,
        "NeighborAdvertisement": 136,
        "RedirectMessage": 137,
    },
}


def specs_of(document: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The rules of the object, with their places: `spec` and every element of `specs`. Raises InvalidPolicy."""
    fields = Fields({key: document[key] for key in ("spec", "specs") if key in document}, "")
    spec = fields.take("spec")
    found = [("spec", spec)] if spec is not None else []
    found += list(fields.items("specs"))
    if not found:
        raise InvalidPolicy("spec: is missing")
    return found


def directions(spec: Mapping[str, Any], *, deny_only: bool = False) -> frozenset[Direction]:
    """Which directions have rules (`deny_only`: that deny), as far as that can be read."""
    given = [section for section in _SECTIONS if spec.get(section[0]) not in (None, [])]
    return frozenset(direction for _, direction, deny in given if deny or not deny_only)


def named_directions(spec: Mapping[str, Any]) -> frozenset[Direction]:
    """Which directions have rules or are to be closed without any: what is closed if the policy cannot be read."""
    asked = spec.get("enableDefaultDeny")
    closes = asked if isinstance(asked, Mapping) else {}
    return directions(spec) | {direction for direction in Direction if closes.get(direction.label) not in (None, False)}


def subject(spec: Mapping[str, Any], place: str, namespace: str, scope: Scope) -> Selector:
    """Raises InvalidPolicy."""
    if "endpointSelector" not in spec:
        other = "nodeSelector" if "nodeSelector" in spec else "endpointSelector"
        problem = "not supported" if other == "nodeSelector" else "is missing"
        raise InvalidPolicy(f"{place}.{other}: {problem}")
    requirements = read_requirements(spec["endpointSelector"], f"{place}.endpointSelector", sources=True)
    return scope.subject(requirements, namespace)


def read_section(spec: Mapping[str, Any], place: str, namespace: str, scope: Scope, nets: set[IPNetwork]) -> Section:
    """Adds the prefixes that are named to `nets`. Raises InvalidPolicy."""
    fields = Fields(spec, place)
    fields.skip("endpointSelector", "description", "labels")
    closes = set(directions(spec))
    if "enableDefaultDeny" in fields:
        wanted = Fields(fields.take("enableDefaultDeny"), fields.at("enableDefaultDeny"))
        closes = {d for d in Direction if wanted.boolean(d.label, d in closes)}
        wanted.done()
    rules: list[Rule] = []
    for name, direction, deny in _SECTIONS:
        for at, rule in fields.items(name):
            read = _Reader(Fields(rule, at), direction, deny, namespace, scope, nets).rule()
            if read is not None:
                rules.append(read)
    fields.done()
    return Section(subject(spec, place, namespace, scope), frozenset(closes), tuple(rules))


@dataclass(frozen=True, slots=True)
class _Reader:
    fields: Fields
    direction: Direction
    deny: bool
    namespace: str
    scope: Scope
    networks: set[IPNetwork]

    def rule(self) -> Rule | None:
        """None: a rule that says nothing, as `{}`; it still closes its direction."""
        said, peers = self._peers()
        ports = self._ports()
        self.fields.done()
        if not said and ports is None:
            return None
        return Rule(self.direction, self.deny, peers, ports, self.fields.place)

    def _peers(self) -> tuple[bool, tuple[Selector, ...] | None]:
        """Whether the rule says anything of peers, and whom it means; None is everybody."""
        side = "from" if self.direction is Direction.INGRESS else "to"
        readers: dict[str, Callable[[str, Any], list[Selector] | None]] = {
            f"{side}Endpoints": self._endpoints,
            f"{side}Entities": self._entity,
            f"{side}CIDR": self._cidr,
            f"{side}CIDRSet": self._cidr_set,
        }
        given = [name for name in readers if name in self.fields]
        if len(given) > 1:
            raise InvalidPolicy(f"{self.fields.place}: combining {' and '.join(given)} is not supported")
        if not given:
            return False, None
        (name,) = given
        selectors: list[Selector] = []
        everybody = False
        for place, value in self.fields.items(name):
            found = readers[name](place, value)
            everybody |= found is None
            selectors += found or []
        return True, None if everybody else tuple(dict.fromkeys(selectors))

    def _endpoints(self, place: str, value: Any) -> list[Selector]:
        return [self.scope.peers(read_requirements(value, place, sources=True), self.namespace)]

    def _entity(self, place: str, value: Any) -> list[Selector] | None:
        match value:
            case "all":
                return None
            case "world":
                return [Selector.of([exists(WORLD_LABEL)])]
            case "host":
                return [_reserved(Reserved.HOST)]
            case "remote-node":
                return [_reserved(Reserved.REMOTE_NODE)]
            case "cluster":
                pods = Selector.of([equals(CLUSTER_LABEL, self.scope.cluster)])
                return [pods, *map(_reserved, _CLUSTER_ENTITY)]
        raise InvalidPolicy(f"{place}: entity {value!r} is not supported")

    def _cidr(self, place: str, value: Any) -> list[Selector]:
        network = parse_network(value, place)
        self.networks.add(network)
        return [select_cidr(network)]

    def _cidr_set(self, place: str, value: Any) -> list[Selector]:
        fields = Fields(value, place)
        network = parse_network(fields.take("cidr"), fields.at("cidr"))
        excepts = parse_excepts(network, fields.items("except"))
        fields.done()
        self.networks.update((network, *excepts))
        return [select_cidr(network, excepts)]

    def _ports(self) -> tuple[PortRange, ...] | None:
        if "icmps" in self.fields and "toPorts" in self.fields:
            raise InvalidPolicy(f"{self.fields.at('icmps')}: cannot be combined with toPorts")
        found: list[PortRange] = []
        given = "icmps" in self.fields or "toPorts" in self.fields
        for place, rule in self.fields.items("toPorts"):
            fields = Fields(rule, place)
            ports = [port for at, value in fields.items("ports") for port in _port(Fields(value, at))]
            fields.done()
            if not ports:
                raise InvalidPolicy(f"{place}.ports: needs at least one")
            found += ports
        for place, rule in self.fields.items("icmps"):
            fields = Fields(rule, place)
            types = [_icmp(Fields(value, at)) for at, value in fields.items("fields")]
            fields.done()
            if not types:
                raise InvalidPolicy(f"{place}.fields: needs at least one")
            found += types
        return tuple(found) if given and found else None


def _reserved(reserved: Reserved) -> Selector:
    return Selector.of(map(exists, reserved_labels(reserved)))


def _port(fields: Fields) -> list[PortRange]:
    text = fields.take("port")
    text = str(text) if isinstance(text, int) and not isinstance(text, bool) else text
    if not isinstance(text, str) or not text:
        raise InvalidPolicy(f"{fields.at('port')}: needs a number or a name")
    protocol = fields.text("protocol", "ANY") or "ANY"
    if protocol != "ANY" and protocol not in PROTOCOLS:
        raise InvalidPolicy(f"{fields.at('protocol')}: {protocol!r} is none of ANY, {', '.join(PROTOCOLS)}")
    last = fields.number("endPort", most=LAST_PORT)
    fields.done()
    numbers = PROTOCOLS.values() if protocol == "ANY" else (PROTOCOLS[protocol],)
    if not is_number(text):
        if last:
            raise InvalidPolicy(f"{fields.at('endPort')}: needs a port that is a number")
        name = parse_port_name(text.lower(), fields.at("port"))
        return [PortRange(number, name=name) for number in numbers]
    first = int(text)
    if first > LAST_PORT:
        raise InvalidPolicy(f"{fields.at('port')}: {first} is no port")
    if first == 0:
        return [PortRange(number) for number in numbers]
    if last and last < first:
        raise InvalidPolicy(f"{fields.at('endPort')}: {last} is below port {first}")
    return [PortRange(number, first, last or first) for number in numbers]


def _icmp(fields: Fields) -> PortRange:
    family = fields.text("family", "IPv4")
    if family not in _ICMP_TYPES:
        raise InvalidPolicy(f"{fields.at('family')}: {family!r} is neither IPv4 nor IPv6")
    value = fields.take("type")
    fields.done()
    named = _ICMP_TYPES[family].get(value) if isinstance(value, str) else None
    if named is None and isinstance(value, str) and is_number(value):
        named = int(value)
    number = named if named is not None else value
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= 255:
        raise InvalidPolicy(f"{fields.at('type')}: {value!r} is no ICMP type of {family}")
    return PortRange(ICMP if family == "IPv4" else ICMPV6, number, number)
