"""The rules that kube-proxy's iptables mode writes, for `bench lb`'s peer: names, order and matches as iptables-save
shows them on its nodes (pkg/proxy/iptables/proxier.go), with the KUBE-FIREWALL of the kubelet.

New connections walk KUBE-SERVICES in the nat table; every forwarded packet passes KUBE-FORWARD in the filter table. A
service other than the one that is asked has its rule in KUBE-SERVICES, and an empty chain that no packet enters.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

NEW = "-m conntrack --ctstate NEW"
SHOWN = 3
Backends = Sequence[tuple[str, int]]  # address, port


def _filter() -> list[str]:
    firewall = f'{NEW} -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL'
    portals = f'{NEW} -m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
    external = f'{NEW} -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES'
    chains = ("NODEPORTS", "EXTERNAL-SERVICES", "FIREWALL", "FORWARD", "PROXY-FIREWALL", "SERVICES")
    return [
        "*filter",
        *(f":KUBE-{chain} - [0:0]" for chain in chains),
        f"-A INPUT {firewall}",
        '-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS',
        f"-A INPUT {external}",
        "-A INPUT -j KUBE-FIREWALL",
        f"-A FORWARD {firewall}",
        '-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD',
        f"-A FORWARD {portals}",
        f"-A FORWARD {external}",
        f"-A OUTPUT {firewall}",
        f"-A OUTPUT {portals}",
        "-A OUTPUT -j KUBE-FIREWALL",
        "-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment"
        ' "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP',
        "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
        '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT',
        '-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule"'
        " -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "COMMIT",
    ]


def _endpoints(service: int, frontend: IPv4Address, pods: IPv4Network, backends: Backends) -> list[str]:
    """The chains that a new connection to this service goes through."""
    chain, name = f"KUBE-SVC-{service:05}", f"bench/svc{service}:http"
    rules = [
        f'-A {chain} ! -s {pods} -d {frontend}/32 -p tcp -m comment --comment "{name} cluster IP"'
        " -m tcp --dport 80 -j KUBE-MARK-MASQ"
    ]
    for n, (address, port) in enumerate(backends):
        left = len(backends) - n
        chance = f"-m statistic --mode random --probability {1 / left:.11f} " if left > 1 else ""
        rules.append(f'-A {chain} -m comment --comment "{name} -> {address}:{port}" {chance}-j KUBE-SEP-{n}')
    for n, (address, port) in enumerate(backends):
        comment = f'-m comment --comment "{name}"'
        rules.append(f"-A KUBE-SEP-{n} -s {address}/32 {comment} -j KUBE-MARK-MASQ")
        rules.append(f"-A KUBE-SEP-{n} -p tcp {comment} -m tcp -j DNAT --to-destination {address}:{port}")
    return rules


def _nat(frontends: Sequence[IPv4Address], asked: int, pods: IPv4Network, backends: Backends) -> list[str]:
    portals = '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
    services = [
        f'-A KUBE-SERVICES -d {address}/32 -p tcp -m comment --comment "bench/svc{n}:http cluster IP"'
        f" -m tcp --dport 80 -j KUBE-SVC-{n:05}"
        for n, address in enumerate(frontends)
    ]
    return [
        "*nat",
        *(f":KUBE-{chain} - [0:0]" for chain in ("MARK-MASQ", "NODEPORTS", "POSTROUTING", "SERVICES")),
        *(f":KUBE-SVC-{n:05} - [0:0]" for n in range(len(frontends))),
        *(f":KUBE-SEP-{n} - [0:0]" for n in range(len(backends))),
        f"-A PREROUTING {portals}",
        f"-A OUTPUT {portals}",
        '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
        "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
        "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0",
        '-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT"'
        " -j MASQUERADE --random-fully",
        *services,
        '-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this'
        ' chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS',
        *_endpoints(asked, frontends[asked], pods, backends),
        "COMMIT",
    ]


def rules(frontends: Sequence[IPv4Address], asked: int, pods: IPv4Network, backends: Backends) -> list[str]:
    """Input of iptables-restore: services at port 80 of these addresses; the `asked`-th has the backends."""
    return [*_filter(), *_nat(frontends, asked, pods, backends)]


def shown(lines: Sequence[str]) -> list[str]:
    """The same for people: of the chains and rules that each service has, the first few."""
    alike = [[line for line in lines if line.startswith(begin)] for begin in (":KUBE-SVC-", "-A KUBE-SERVICES -d ")]
    hidden = {line for each in alike for line in each[SHOWN:]}
    return [*(line for line in lines if line not in hidden), f"# and {len(hidden)} chains and rules like those of svc0"]
