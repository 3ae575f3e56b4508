"""What a kernel would answer that has a device for every tunnel and every node on-link."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from meshd.daemon.netevents import EVERYTHING, Concern
from meshd.daemon.nodes import Needs
from routing.plan import End, Hop, Surroundings
from routing.tunnel import DEFAULT, Tunnel

DEVICES = {8472: 8, 8473: 9}
ETH0 = 2


def answers(needs: Needs) -> Surroundings:
    """Tunnel devices are numbered by DEVICES; the underlay's MTU is 1500."""
    source = ip_address("172.18.1.11")
    tunnels = needs.tunnels | {DEFAULT}
    return Surroundings(
        hops={address: Hop(ETH0, "eth0", 1500, source) for address in needs.hops},
        ends={tunnel: End(DEVICES.get(tunnel.port, tunnel.port), tunnel.device, 1500) for tunnel in tunnels},
    )


@dataclass
class FakeSurvey:
    """Behaves as meshd.daemon.survey.Survey."""

    own: Tunnel = DEFAULT
    problems: Mapping[str, str] = field(default_factory=dict)

    def ask(self, needs: Needs, concern: Concern = EVERYTHING) -> Surroundings:
        return answers(needs)

    def tidy(self, needs: Needs) -> tuple[str, ...]:
        return ()
