"""Adopting tunnel devices, by what the kernel would say of them; the real one is asked in tests/root."""

from typing import Any

import pytest

from routing.devices import _is_collect_metadata
from routing.tunnel import Encapsulation, Tunnel

VXLAN, GENEVE = Tunnel(Encapsulation.VXLAN, 8473), Tunnel(Encapsulation.GENEVE, 6081)


class Message:
    def __init__(self, attributes: dict[str, Any]) -> None:
        self._attributes = attributes

    def get_attr(self, name: str) -> Any:
        return self._attributes.get(name)


def link(kind: str, **data: object) -> Message:
    return Message({"IFLA_LINKINFO": Message({"IFLA_INFO_KIND": kind, "IFLA_INFO_DATA": Message(dict(data))})})


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        (link("vxlan", IFLA_VXLAN_COLLECT_METADATA=1, IFLA_VXLAN_PORT=8473), VXLAN, True),
        (link("vxlan", IFLA_VXLAN_COLLECT_METADATA=0, IFLA_VXLAN_PORT=8473), VXLAN, False),
        (link("vxlan", IFLA_VXLAN_COLLECT_METADATA=1, IFLA_VXLAN_PORT=8472), VXLAN, False),
        (link("geneve", IFLA_GENEVE_COLLECT_METADATA=True, IFLA_GENEVE_PORT=6081), GENEVE, True),
        (link("geneve", IFLA_GENEVE_COLLECT_METADATA=b"", IFLA_GENEVE_PORT=6081), GENEVE, True),
        (link("geneve", IFLA_GENEVE_PORT=6081), GENEVE, False),
        (link("geneve", IFLA_GENEVE_COLLECT_METADATA=True, IFLA_GENEVE_PORT=6082), GENEVE, False),
        (link("vxlan", IFLA_VXLAN_COLLECT_METADATA=1, IFLA_VXLAN_PORT=6081), GENEVE, False),
        (Message({}), VXLAN, False),
    ],
)
def test_a_device_is_used_only_if_it_is_what_is_wanted(found: Message, wanted: Tunnel, expected: bool) -> None:
    assert _is_collect_metadata(found, wanted) is expected
