"""networking.k8s.io/v1 NetworkPolicy, whole."""

from collections.abc import Mapping
from typing import Any

from policy.fields import Fields, InvalidPolicy, is_number, parse_excepts, parse_network, parse_port_name
from policy.model import Direction, Rule, Section
from policy.ports import LAST_PORT, PROTOCOLS, PortRange
from policy.scope import Scope, read_namespace_requirements, read_requirements
from policy.selector import IPNetwork, Selector, select_cidr

_TYPES = {"Ingress": Direction.INGRESS, "Egress": Direction.EGRESS}
_PEERS = {Direction.INGRESS: "from", Direction.EGRESS: "to"}


def directions(spec: Mapping[str, Any]) -> frozenset[Direction]:
    """Which directions the policy names, as far as that can be read: what is closed if the rest cannot."""
    types = spec.get("policyTypes")
    if types not in (None, []):
        are_known = isinstance(types, list) and all(isinstance(name, str) and name in _TYPES for name in types)
        return frozenset(_TYPES[name] for name in types) if are_known else frozenset(Direction)
    return frozenset([Direction.INGRESS] if spec.get("egress") in (None, []) else Direction)


def subject(spec: Mapping[str, Any], namespace: str, scope: Scope) -> Selector:
    """Raises InvalidPolicy."""
    requirements = read_requirements(spec.get("podSelector"), "podSelector", sources=False)
    return scope.subject(requirements, namespace)


def read_section(spec: Mapping[str, Any], namespace: str, scope: Scope, networks: set[IPNetwork]) -> Section:
    """Adds the prefixes that are named to `networks`. Raises InvalidPolicy."""
    fields = Fields(spec, "")
    fields.skip("podSelector")
    for place, name in fields.items("policyTypes"):
        if not isinstance(name, str) or name not in _TYPES:
            raise InvalidPolicy(f"{place}: {name!r} is neither Ingress nor Egress")
    closes = directions(spec)
    rules = []
    for direction in Direction:
        for place, rule in fields.items(direction.label):
            if direction in closes:
                rules.append(_rule(Fields(rule, place), direction, namespace, scope, networks))
    fields.done()
    return Section(subject(spec, namespace, scope), closes, tuple(rules))


def _rule(fields: Fields, direction: Direction, namespace: str, scope: Scope, networks: set[IPNetwork]) -> Rule:
    peers = tuple(_peer(Fields(peer, at), namespace, scope, networks) for at, peer in fields.items(_PEERS[direction]))
    ports = tuple(_port(Fields(port, at)) for at, port in fields.items("ports"))
    fields.done()
    return Rule(direction, False, peers or None, ports or None, fields.place)


def _peer(fields: Fields, namespace: str, scope: Scope, networks: set[IPNetwork]) -> Selector:
    pods, namespaces, block = (fields.take(name) for name in ("podSelector", "namespaceSelector", "ipBlock"))
    fields.done()
    if block is not None:
        if pods is not None or namespaces is not None:
            raise InvalidPolicy(f"{fields.at('ipBlock')}: cannot be combined with a selector")
        return _ip_block(Fields(block, fields.at("ipBlock")), networks)
    if pods is None and namespaces is None:
        raise InvalidPolicy(f"{fields.place}: needs podSelector, namespaceSelector or ipBlock")
    requirements = read_requirements(pods, fields.at("podSelector"), sources=False)
    if namespaces is None:
        return scope.peers(requirements, namespace)
    requirements += read_namespace_requirements(namespaces, fields.at("namespaceSelector"))
    return scope.peers(requirements, "")


def _ip_block(fields: Fields, networks: set[IPNetwork]) -> Selector:
    network = parse_network(fields.take("cidr"), fields.at("cidr"))
    excepts = parse_excepts(network, fields.items("except"))
    fields.done()
    networks.update((network, *excepts))
    return select_cidr(network, excepts)


def _port(fields: Fields) -> PortRange:
    protocol_name = fields.text("protocol", "TCP")
    if protocol_name not in PROTOCOLS:
        raise InvalidPolicy(f"{fields.at('protocol')}: {protocol_name!r} is none of {', '.join(PROTOCOLS)}")
    protocol = PROTOCOLS[protocol_name]
    port = fields.take("port")
    last = fields.number("endPort", least=1, most=LAST_PORT)
    fields.done()
    if isinstance(port, str) and port:
        if is_number(port):
            raise InvalidPolicy(f"{fields.at('port')}: {port!r} is text: a number stands here without quotes")
        if last is not None:
            raise InvalidPolicy(f"{fields.at('endPort')}: needs a port that is a number")
        return PortRange(protocol, name=parse_port_name(port, fields.at("port")))
    if port is None:
        if last is not None:
            raise InvalidPolicy(f"{fields.at('endPort')}: needs a port")
        return PortRange(protocol)
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= LAST_PORT:
        raise InvalidPolicy(f"{fields.at('port')}: {port!r} is neither a port nor a name")
    if last is not None and last < port:
        raise InvalidPolicy(f"{fields.at('endPort')}: {last} is below port {port}")
    return PortRange(protocol, port, last or port)
