"""The peers of `bench tunnel` and `bench routing`: two nodes on one L2 and a pod behind each, joined as the kernel's
manual pages say, without a mesh.

    pod a ── veth ── node a ── eth0 ─┬─ bridge ─┬─ eth0 ── node b ── veth ── pod b
    192.168.1.2      (vxlan0)        └─ switch ─┘         (vxlan0)       192.168.2.2

vxlan: a VXLAN device with static entries; device and pods have the MTU that VXLAN leaves of the underlay's 1500, 1450.
routing: `ip route` to each other's pods; and, with the programs of a mesh that has no business with them, bystanders.
"""

import secrets
import subprocess
from types import TracebackType

UNDERLAY_MTU = 1500
VXLAN_MTU = UNDERLAY_MTU - 50
MACS = {"a": "02:00:00:00:00:0a", "b": "02:00:00:00:00:0b"}
NUMBERS = {"a": 1, "b": 2}
OTHER = {"a": "b", "b": "a"}


def vxlan(node: str, side: str) -> list[str]:
    """The commands by which a node reaches the other one's pods: bridge(8), ip-link(8)."""
    number, far, other = NUMBERS[side], NUMBERS[OTHER[side]], MACS[OTHER[side]]
    return [
        f"ip -n {node} link add vxlan0 address {MACS[side]} mtu {VXLAN_MTU} type vxlan id 42 dstport 4789 nolearning",
        f"bridge -n {node} fdb append {other} dev vxlan0 dst 172.18.0.{far}",
        f"ip -n {node} addr add 192.168.100.{number}/24 dev vxlan0",
        f"ip -n {node} link set vxlan0 up",
        f"ip -n {node} neigh add 192.168.100.{far} lladdr {other} dev vxlan0",
        f"ip -n {node} route add 192.168.{far}.0/24 via 192.168.100.{far} dev vxlan0",
    ]


def routing(node: str, side: str) -> list[str]:
    """The same by routes: ip-route(8)."""
    far = NUMBERS[OTHER[side]]
    return [f"ip -n {node} route add 192.168.{far}.0/24 via 172.18.0.{far}"]


WAYS = {"vxlan": (vxlan, VXLAN_MTU), "routing": (routing, UNDERLAY_MTU)}


def set_up(tag: str, way: str) -> list[list[str]]:
    """The commands that build it, in order."""
    switch, (join, mtu) = f"{tag}-switch", WAYS[way]
    commands = [f"ip netns add {switch}", f"ip -n {switch} link add br0 type bridge", f"ip -n {switch} link set br0 up"]
    for side, number in NUMBERS.items():
        node, pod = f"{tag}-node-{side}", f"{tag}-pod-{side}"
        commands += [
            f"ip netns add {node}",
            f"ip netns add {pod}",
            f"ip link add eth0 netns {node} type veth peer name port-{side} netns {switch}",
            f"ip -n {switch} link set port-{side} master br0 up",
            f"ip -n {node} addr add 172.18.0.{number}/16 dev eth0",
            f"ip -n {node} link set eth0 mtu {UNDERLAY_MTU} up",
            *join(node, side),
            f"ip netns exec {node} sysctl -qw net.ipv4.ip_forward=1",
            f"ip link add eth0 netns {pod} mtu {mtu} type veth peer name pod0 mtu {mtu} netns {node}",
            f"ip -n {node} addr add 192.168.{number}.1/24 dev pod0",
            f"ip -n {node} link set pod0 up",
            f"ip -n {pod} link set lo up",
            f"ip -n {pod} addr add 192.168.{number}.2/24 dev eth0",
            f"ip -n {pod} link set eth0 up",
            f"ip -n {pod} route add default via 192.168.{number}.1",
        ]
    return [command.split() for command in commands]


class Plain:
    """Builds the topology on entering and removes it on leaving, also when the benchmark fails. `way`: see WAYS."""

    server_address = "192.168.2.2"

    def __init__(self, way: str) -> None:
        self.tag = f"pl{secrets.token_hex(3)}"
        self.commands = set_up(self.tag, way)

    def __enter__(self) -> "Plain":
        try:
            for command in self.commands:
                subprocess.run(command, check=True)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def node(self, side: str) -> str:
        """The name of a node's network namespace."""
        return f"{self.tag}-node-{side}"

    def client(self, *command: str) -> list[str]:
        """The command line that runs `command` in the client's pod."""
        return ["ip", "netns", "exec", f"{self.tag}-pod-a", *command]

    def server(self, *command: str) -> list[str]:
        """The command line that runs `command` in the server's pod."""
        return ["ip", "netns", "exec", f"{self.tag}-pod-b", *command]

    def _remove(self) -> None:
        for name in ("pod-a", "pod-b", "node-a", "node-b", "switch"):
            subprocess.run(["ip", "netns", "del", f"{self.tag}-{name}"], check=False, capture_output=True)
