"""The peer of `bench routing` in mode direct: two nodes on one L2 that route their pods' prefixes to each other with
`ip route`; and, with the programs of a mesh that has no business with them, the bystanders.

    pod a ── veth ── node a ── eth0 ─┬─ bridge ─┬─ eth0 ── node b ── veth ── pod b
    192.168.1.2                      └─ switch ─┘                    192.168.2.2
"""

import secrets
import subprocess
from types import TracebackType

from bench.plain_vxlan import NUMBERS, OTHER


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
            f"ip -n {node} link set eth0 up",
            f"ip -n {node} route add 192.168.{far}.0/24 via 172.18.0.{far}",
            f"ip netns exec {node} sysctl -qw net.ipv4.ip_forward=1",
            f"ip link add eth0 netns {pod} type veth peer name pod0 netns {node}",
            f"ip -n {node} addr add 192.168.{number}.1/24 dev pod0",
            f"ip -n {node} link set pod0 up",
            f"ip -n {pod} link set lo up",
            f"ip -n {pod} addr add 192.168.{number}.2/24 dev eth0",
            f"ip -n {pod} link set eth0 up",
            f"ip -n {pod} route add default via 192.168.{number}.1",
        ]
    return [command.split() for command in commands]


class PlainRouting:
    """Builds the topology on entering and removes it on leaving, also when the benchmark fails."""

    server_address = "192.168.2.2"

    def __init__(self) -> None:
        self.tag = f"pr{secrets.token_hex(3)}"
        self.commands = set_up(self.tag)

    def __enter__(self) -> "PlainRouting":
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
