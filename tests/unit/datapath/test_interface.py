"""What the kernel may answer to questions about interfaces; real ones are asked in tests/root."""

from ipaddress import ip_address
from typing import Any, cast

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from datapath.interface import InterfaceError, find_endpoint


class Message(dict[str, int]):
    def __init__(self, attributes: dict[str, Any], **fields: int) -> None:
        super().__init__(fields)
        self._attributes = attributes

    def get_attr(self, name: str) -> Any:
        return self._attributes.get(name)


class Kernel:
    """A bridge without ports, whose neighbour must not be asked for."""

    def route(self, *_: str, **__: object) -> list[Message]:
        return [Message({"RTA_OIF": 4})]

    def link(self, *_: str, **__: object) -> list[Message]:
        return [Message({"IFLA_LINKINFO": Message({"IFLA_INFO_KIND": "bridge"}, number=1)}, index=4)]

    def get_neighbours(self, **_: object) -> list[Message]:
        return []

    def neigh(self, *_: str, **__: object) -> None:
        raise NetlinkError(22, "Invalid argument")


def test_a_question_that_is_refused_is_an_error_of_its_own_and_waits_for_nobody() -> None:
    with pytest.raises(InterfaceError, match=r"about 10\.0\.0\.1: .*Invalid argument"):
        find_endpoint(ip_address("10.0.0.1"), netlink=cast(IPRoute, Kernel()), resolve_s=60.0)
