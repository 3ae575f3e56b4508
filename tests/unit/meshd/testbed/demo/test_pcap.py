import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.testbed.demo.pcap import BadCapture, Tunnelled, parse_pcap

NODE_A, NODE_B = IPv4Address("172.18.1.12"), IPv4Address("172.18.2.11")
POD_A, POD_B = IPv4Address("10.0.1.1"), IPv4Address("20.0.0.1")


def ethernet(payload: bytes, ethertype: int = 0x0800) -> bytes:
    return bytes(12) + struct.pack("!H", ethertype) + payload


def ipv4(source: IPv4Address, destination: IPv4Address, protocol: int, payload: bytes, fragment: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, fragment, 64, protocol, 0)
    return head + source.packed + destination.packed + payload


def vxlan(vni: int, inner: bytes, port: int = 8473) -> bytes:
    udp = struct.pack("!HHHH", 40000, port, 16 + len(inner), 0)
    return udp + struct.pack("!BBHI", 0x08, 0, 0, vni << 8) + inner


def capture(*frames: bytes, magic: int = 0xA1B2C3D4, order: str = "<", link: int = 1) -> bytes:
    head = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    return head + b"".join(struct.pack(f"{order}IIII", 0, 0, len(frame), len(frame)) + frame for frame in frames)


def tunnelled(vni: int, port: int = 8473) -> bytes:
    return ethernet(ipv4(NODE_A, NODE_B, 17, vxlan(vni, ethernet(ipv4(POD_A, POD_B, 6, bytes(20))), port)))


@pytest.mark.parametrize(("magic", "order"), [(0xA1B2C3D4, "<"), (0xA1B2C3D4, ">"), (0xA1B23C4D, "<")])
def test_both_headers_and_the_vni(magic: int, order: str) -> None:
    frames = parse_pcap(capture(tunnelled(66001), magic=magic, order=order))
    assert frames.tunnelled == (Tunnelled((NODE_A, NODE_B), 66001, (POD_A, POD_B)),)
    assert frames.fragments == 0


def test_other_traffic_is_left_out() -> None:
    arp = ethernet(bytes(28), 0x0806)
    other = tunnelled(7, port=4789)
    inner_arp = ethernet(ipv4(NODE_A, NODE_B, 17, vxlan(7, arp)))
    assert parse_pcap(capture(arp, other, inner_arp)).tunnelled == ()


@pytest.mark.parametrize(("field", "count"), [(0x2000, 1), (0x00B9, 1), (0x4000, 0)])
def test_first_and_later_fragments_count_and_dont_fragment_does_not(field: int, count: int) -> None:
    assert parse_pcap(capture(ethernet(ipv4(NODE_A, NODE_B, 17, bytes(64), field)))).fragments == count


def test_a_last_frame_that_is_being_written_is_left_out() -> None:
    whole = capture(tunnelled(1), tunnelled(2))
    assert [packet.vni for packet in parse_pcap(whole[:-5]).tunnelled] == [1]


@pytest.mark.parametrize("content", [b"", bytes(24), capture(link=113)])
def test_what_is_no_capture_is_said(content: bytes) -> None:
    with pytest.raises(BadCapture):
        parse_pcap(content)


@given(st.lists(st.binary(max_size=120), max_size=5))
def test_any_frames_are_survived(frames: list[bytes]) -> None:
    parse_pcap(capture(*frames))
