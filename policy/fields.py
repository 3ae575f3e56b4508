"""Reads a specification strictly: a field that is not known is named, never skipped."""

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from policy.selector import IPNetwork

_NUMBER = re.compile(r"[0-9]{1,5}")
_PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")


class InvalidPolicy(ValueError):
    """str(error) names the field and says what is wrong with it."""


class Fields:
    """A JSON object of which every field must be read: `with` it, or call `done`."""

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, Mapping):
            raise InvalidPolicy(f"{place}: must be an object, is {_kind(value)}")
        self._rest: dict[str, Any] = {key: item for key, item in value.items() if item is not None}
        self.place = place

    def at(self, name: str) -> str:
        return f"{self.place}.{name}" if self.place else name

    def __contains__(self, name: str) -> bool:
        return name in self._rest

    def skip(self, *names: str) -> None:
        """These say nothing about what is allowed."""
        for name in names:
            self._rest.pop(name, None)

    def take(self, name: str) -> Any:
        """The value, None if it is not given."""
        return self._rest.pop(name, None)

    def text(self, name: str, default: str = "") -> str:
        value = self._rest.pop(name, default)
        if not isinstance(value, str):
            raise InvalidPolicy(f"{self.at(name)}: must be text, is {_kind(value)}")
        return value

    def texts(self, name: str) -> list[str]:
        values = list(self.items(name))
        for place, value in values:
            if not isinstance(value, str):
                raise InvalidPolicy(f"{place}: must be text, is {_kind(value)}")
        return [value for _, value in values]

    def number(self, name: str, *, least: int = 0, most: int = 0xFFFF) -> int | None:
        value = self._rest.pop(name, None)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise InvalidPolicy(f"{self.at(name)}: must be a number from {least} to {most}, is {value!r}")
        return value

    def boolean(self, name: str, default: bool) -> bool:
        value = self._rest.pop(name, default)
        if not isinstance(value, bool):
            raise InvalidPolicy(f"{self.at(name)}: must be true or false, is {value!r}")
        return value

    def items(self, name: str) -> Iterator[tuple[str, Any]]:
        """The elements of a list with their places; nothing if it is not given."""
        values = self._rest.pop(name, None)
        if values is None:
            return
        if not isinstance(values, list):
            raise InvalidPolicy(f"{self.at(name)}: must be a list, is {_kind(values)}")
        for index, value in enumerate(values):
            yield f"{self.at(name)}[{index}]", value

    def done(self) -> None:
        """Raises InvalidPolicy for what nobody asked for."""
        if self._rest:
            raise InvalidPolicy(f"{', '.join(self.at(name) for name in sorted(self._rest))}: not supported")


def parse_network(text: object, place: str) -> IPNetwork:
    if not isinstance(text, str):
        raise InvalidPolicy(f"{place}: must be a prefix, is {_kind(text)}")
    try:
        return ip_network(text, strict=False)
    except ValueError as error:
        raise InvalidPolicy(f"{place}: {text!r} is not a prefix of addresses") from error


def parse_excepts(network: IPNetwork, texts: Iterable[tuple[str, object]]) -> tuple[IPNetwork, ...]:
    """Prefixes inside `network`."""
    excepts = []
    for place, text in texts:
        inner = parse_network(text, place)
        if inner.version != network.version or not inner.subnet_of(network):  # type: ignore[arg-type]
            raise InvalidPolicy(f"{place}: {inner} is not inside {network}")
        excepts.append(inner)
    return tuple(excepts)


def is_number(text: str) -> bool:
    """Whether it may be the number of a port or an ICMP type."""
    return _NUMBER.fullmatch(text) is not None


def parse_port_name(text: str, place: str) -> str:
    """A name as pods may give it to a port (RFC 6335, lower case)."""
    if not _PORT_NAME.fullmatch(text):
        raise InvalidPolicy(f"{place}: {text[:64]!r} is neither a port nor a name")
    return text


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list", str: "text", bool: "a boolean", int: "a number"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)
