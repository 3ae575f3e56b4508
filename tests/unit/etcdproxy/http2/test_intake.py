from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdproxy.http2.frames import CONTINUATION, END_HEADERS, HEADERS, PING, PREFACE, data_head, ping_ack
from etcdproxy.http2.intake import GREETING, FrameTooLong, Intake

_HEADERS_HEAD = b"\0\0\x02" + bytes([HEADERS, 0]) + b"\0\0\0\x01"
_CONTINUATION = b"\0\0\x01\x09" + bytes([END_HEADERS]) + b"\0\0\0\x01" + b"x"
_FRAMES = [data_head(3, 5) + b"abc", ping_ack(b"12345678"), _HEADERS_HEAD + b"hh", _CONTINUATION, data_head(0, 7)]


@given(cuts=st.lists(st.integers(0, 100), max_size=6))
def test_frames_are_the_same_however_the_bytes_arrive(cuts: list[int]) -> None:
    sent = PREFACE + b"".join(_FRAMES)
    edges = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    intake = Intake(16_384)
    found = [frame for a, b in pairwise(edges) for frame in intake.cut(sent[a:b])]
    assert [frame.data for frame in found] == [PREFACE, *_FRAMES]
    assert [frame.kind for frame in found] == [GREETING, 0, PING, HEADERS, CONTINUATION, 0]
    assert [frame.stream for frame in found] == [0, 5, 0, 1, 1, 7]
    assert [frame.within_headers for frame in found] == [False, False, False, False, True, False]


def test_a_frame_that_is_too_long_is_refused_before_it_is_there() -> None:
    intake = Intake(100)
    with pytest.raises(FrameTooLong, match="101 bytes"):
        list(intake.cut(PREFACE + data_head(101, 1)))


def test_another_greeting_is_handed_on_to_be_complained_about() -> None:
    (frame,) = Intake(100).cut(b"GET / HTTP/1.1\r\nHost: x")
    assert frame.kind == GREETING
    assert frame.data != PREFACE
