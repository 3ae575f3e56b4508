"""The peer of `bench tunnel`: two nodes joined by a kernel VXLAN device with static entries, as its manual page says.

    pod a ── veth ── node a ── eth0 ─┬─ bridge ─┬─ eth0 ── node b ── veth ── pod b
    192.168.1.2      vxlan0          └─ switch ─┘          vxlan0      192.168.2.2

The underlay has MTU 1500; the device and the pods have the MTU that VXLAN leaves of it, 1450.
"""

import secrets
import subprocess
from types import TracebackType

UNDERLAY_MTU = 1500
POD_MTU = UNDERLAY_MTU - 50
MACS = {"a": "02:00:00:00:00:0a", "b": "02:00:00:00:00:0b"}
NUMBERS = {"a": 1, "b": 2}
OTHER = {"a": "b", "b": "a"}


def set_up(tag: str) -> list[list[str]]:
    """The commands that build it, in order."""
    switch = f"{tag}-switch"
    commands = [f"ip netns add {switch}", f"ip -n {switch} link add br0 type bridge", f"ip -n {switch} link set br0 up"]
    for side, number in NUMBERS.items():
        node, pod, far = f"{tag}-node-{side}", f"{tag}-pod-{side}", NUMBERS[OTHER[side]]
        commands += [
            f"ip netns add {node}",
            f"ip netns add {pod}",
            f"ip link add eth0 netns {node} type veth peer name port-{side} netns {switch}",
            f"ip -n {switch} link set port-{side} master br0 up",
            f"ip -n {node} addr add 172.18.0.{number}/16 dev eth0",
            f"ip -n {node} link set eth0 mtu {UNDERLAY_MTU} up",
            f"ip -n {node} link add vxlan0 address {MACS[side]} mtu {POD_MTU} type vxlan id 42 dstport 4789 nolearning",
            f"bridge -n {node} fdb append {MACS[OTHER[side]]} dev vxlan0 dst 172.18.0.{far}",
            f"ip -n {node} addr add 192.168.100.{number}/24 dev vxlan0",
            f"ip -n {node} link set vxlan0 up",
            f"ip -n {node} neigh add 192.168.100.{far} lladdr {MACS[OTHER[side]]} dev vxlan0",
            f"ip -n {node} route add 192.168.{far}.0/24 via 192.168.100.{far} dev vxlan0",
            f"ip netns exec {node} sysctl -qw net.ipv4.ip_forward=1",
            f"ip link add eth0 netns {pod} mtu {POD_MTU} type veth peer name pod0 mtu {POD_MTU} netns {node}",
            f"ip -n {node} addr add 192.168.{number}.1/24 dev pod0",
            f"ip -n {node} link set pod0 up",
            f"ip -n {pod} link set lo up",
            f"ip -n {pod} addr add 192.168.{number}.2/24 dev eth0",
            f"ip -n {pod} link set eth0 up",
            f"ip -n {pod} route add default via 192.168.{number}.1",
        ]
    return [command.split() for command in commands]


class PlainVxlan:
    """Builds the topology on entering and removes it on leaving, also when the benchmark fails."""

    server_address = "192.168.2.2"

    def __init__(self) -> None:
        self.tag = f"pv{secrets.token_hex(3)}"
        self.commands = set_up(self.tag)

    def __enter__(self) -> "PlainVxlan":
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

    def client(self, *command: str) -> list[str]:
        """The command line that runs `command` in the client's pod."""
        return ["ip", "netns", "exec", f"{self.tag}-pod-a", *command]

    def server(self, *command: str) -> list[str]:
        """The command line that runs `command` in the server's pod."""
        return ["ip", "netns", "exec", f"{self.tag}-pod-b", *command]

    def _remove(self) -> None:
        for name in ("pod-a", "pod-b", "node-a", "node-b", "switch"):
            subprocess.run(["ip", "netns", "del", f"{self.tag}-{name}"], check=False, capture_output=True)
