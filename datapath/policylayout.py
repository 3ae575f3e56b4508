"""The ctypes twin of bpf/policy_layout.h: keys and values of the maps of policy."""

import ctypes
from enum import IntEnum, IntFlag

from datapath.words import be16, u8, u32, u64, v4, v6


class SubjectFlag(IntFlag):
    CLOSED_INGRESS = 1
    CLOSED_EGRESS = 2
    AUDIT = 4
    SHUT_INGRESS = 8
    SHUT_EGRESS = 16


class VerdictCode(IntEnum):
    NONE = 0
    ALLOW = 1
    DENY = 2


class Iface(ctypes.Structure):
    _fields_ = (("identity", u32),)


class Subject(ctypes.Structure):
    _fields_ = (("revision", u64), ("flags", u32), ("pad", u32))


class PolicyKey(ctypes.Structure):
    _fields_ = (
        ("prefixlen", u32),
        ("subject", u32),
        ("peer", u32),
        ("direction", u8),
        ("protocol", u8),
        ("port", be16),
    )


class PolicyEntry(ctypes.Structure):
    _fields_ = (("verdict", u32),)


class Outside(ctypes.Structure):
    _fields_ = (("identity", u32),)


class Ct4Key(ctypes.Structure):
    _fields_ = (
        ("pod", v4),
        ("peer", v4),
        ("pod_port", be16),
        ("peer_port", be16),
        ("ifindex", u32),
        ("protocol", u8),
        ("pad", u8 * 3),
    )


class Ct6Key(ctypes.Structure):
    _fields_ = (
        ("pod", v6),
        ("peer", v6),
        ("pod_port", be16),
        ("peer_port", be16),
        ("ifindex", u32),
        ("protocol", u8),
        ("pad", u8 * 3),
    )


class Ct(ctypes.Structure):
    _fields_ = (("revision", u64), ("seen_s", u32), ("flags", u32))


class Event(ctypes.Structure):
    _fields_ = (
        ("time_ns", u64),
        ("reason", u32),
        ("ifindex", u32),
        ("subject", u32),
        ("peer", u32),
        ("source", v6),
        ("destination", v6),
        ("source_port", be16),
        ("destination_port", be16),
        ("family", u8),
        ("protocol", u8),
        ("direction", u8),
        ("pad", u8),
        ("length", u32),
        ("pad2", u32),
        ("netns", u64),
    )


class Limit(ctypes.Structure):
    _fields_ = (("window", u64), ("sent", u64))
