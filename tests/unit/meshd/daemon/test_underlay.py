import pytest

from meshd.daemon.underlay import device_mtu, interfaces, underlay_mtu


def test_the_mtu_of_a_device() -> None:
    assert device_mtu("lo") >= 1500
    assert underlay_mtu("lo") == device_mtu("lo")


def test_a_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match="No such device"):
        underlay_mtu("nowhere0")


def test_the_interfaces_are_numbers_and_names() -> None:
    assert "lo" in {name for _, name in interfaces()}
