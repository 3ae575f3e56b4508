"""A session against h2's client: what is sent arrives whole, in order and within the reader's windows."""

import asyncio
import random
import struct
from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from grpc import StatusCode
from hypothesis import given, settings
from hypothesis import strategies as st

from etcdproxy.http2.call import MAX_REQUEST_BYTES, Call
from etcdproxy.http2.frames import PREFACE, PREFIX_BYTES
from etcdproxy.http2.message import Message
from etcdproxy.http2.session import Session
from etcdproxy.http2.status import OK, Refused, Status
from etcdproxy.http2.turn import Turn
from tests.support.http2 import HEADERS, MemoryLink, Pair


def framed(message: bytes, *, compressed: bool = False) -> bytes:
    return struct.pack(">BI", compressed, len(message)) + message


def unframed(body: bytes) -> list[bytes]:
    messages = []
    while body:
        _, length = struct.unpack_from(">BI", body)
        messages.append(body[5 : 5 + length])
        body = body[5 + length :]
    return messages


async def echo(call: Call) -> None:
    """Answers each message with itself."""
    while (message := await call.read()) is not None:
        call.answer(message)
    call.finish(OK)


async def once(call: Call) -> None:
    call.answer(await call.read_only())
    call.finish(OK)


class Told:
    """A handler that gives what it is told to, as a watch does."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.calls: list[Call] = []

    async def __call__(self, call: Call) -> None:
        self.calls.append(call)
        sent = 0

        def take(room: int) -> list[bytes]:
            nonlocal sent
            taken: list[bytes] = []
            while room > 0 and sent < len(self.messages):
                taken.append(self.messages[sent])
                room -= PREFIX_BYTES + len(taken[-1])
                sent += 1
            return taken

        call.pull_from(take)
        await asyncio.Event().wait()


async def test_one_message_and_its_answer() -> None:
    pair = Pair(once)
    stream = pair.open()
    pair.client.send_data(stream, framed(b"hello"), end_stream=True)
    await pair.flow()
    assert unframed(pair.body(stream)) == [b"hello"]
    assert pair.trailers(stream)["grpc-status"] == "0"
    assert pair.session.calls == 0


async def test_the_status_of_a_refusal_is_percent_encoded() -> None:
    async def refuse(call: Call) -> None:
        call.finish(Status(StatusCode.PERMISSION_DENIED, "no: 100 % ü\n"))

    pair = Pair(refuse)
    stream = pair.open(end=True)
    await pair.flow()
    found = pair.trailers(stream)
    assert (found[":status"], found["grpc-status"]) == ("200", "7")
    assert found["grpc-message"] == "no: 100 %25 %C3%BC%0A"


@settings(max_examples=30)
@given(data=st.data())
def test_whatever_the_windows_messages_arrive_whole_and_in_order(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 80_000), max_size=4))
    window = data.draw(st.sampled_from([1, 17, 16_384, 65_535, 1 << 20]))
    frame = data.draw(st.sampled_from([16_384, 100_000]))
    capacity = data.draw(st.sampled_from([None, 9_000, 128 << 10]))
    calls = data.draw(st.integers(1, 2))
    if window < 100:  # a frame for every few bytes
        sizes = [size % 40 for size in sizes]
    asyncio.run(_arrive(sizes, window, frame, capacity, calls))


async def _arrive(sizes: list[int], window: int, frame: int, capacity: int | None, calls: int) -> None:
    told = Told()
    told.messages = [bytes([number]) * size for number, size in enumerate(sizes)]
    pair = Pair(told, capacity=capacity)
    pair.client.update_settings(
        {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window, h2.settings.SettingCodes.MAX_FRAME_SIZE: frame}
    )
    await pair.flow()  # h2's client takes longer frames only after it has read that we know
    streams = [pair.open() for _ in range(calls)]
    await pair.flow()
    for stream in streams:
        assert unframed(pair.body(stream)) == told.messages
    told.messages.append(b"one more")
    for call in told.calls:
        call.wake()
    await pair.flow()
    for stream in streams:
        assert unframed(pair.body(stream))[-1] == b"one more"
    pair.session.lost()
    await asyncio.sleep(0)


async def test_a_reader_that_takes_nothing_costs_one_message_and_the_others_go_on() -> None:
    deaf, good = Told(), Told()
    handlers = [deaf, good]
    pair = Pair(lambda call: handlers.pop(0)(call))
    first, second = pair.open(), pair.open()
    await pair.flow()
    pair.acknowledges = False
    deaf.messages += [b"d" * 60_000 for _ in range(20)]
    deaf.calls[0].wake()
    await pair.flow()
    assert deaf.calls[0].pending is not None
    assert deaf.calls[0].since is not None
    assert len(pair.body(first)) == 65_535  # the window of the call, and of the connection
    pair.client.increment_flow_control_window(1 << 20)
    good.messages += [b"g" * 50_000]
    good.calls[0].wake()
    await pair.flow()
    assert unframed(pair.body(second)) == good.messages
    assert len(pair.body(first)) == 65_535
    deaf.calls[0].cut(Status(StatusCode.RESOURCE_EXHAUSTED, "not read"))  # a message is half sent: no trailers
    await pair.flow()
    resets = [event for event in pair.events if isinstance(event, h2.events.StreamReset)]
    assert [(event.stream_id, event.error_code) for event in resets] == [(first, 11)]
    assert pair.session.calls == 1


async def test_what_is_pushed_passes_nothing_and_waits_for_nothing() -> None:
    told = Told()
    pair = Pair(told)
    stream = pair.open()
    await pair.flow()
    [call] = told.calls
    assert call.push(Message(b"first"))
    assert call.push(Message(b"second"))
    pair.session.ping()
    assert not call.push(Message(b"there is a ping to be sent"))
    told.messages.append(b"third")
    call.wake()
    assert not call.push(Message(b"the source is to be asked"))
    await pair.flow()
    assert unframed(pair.body(stream)) == [b"first", b"second", b"third"]
    pair.acknowledges = False
    big = Message(b"b" * 40_000)  # more than one frame
    assert call.push(big)
    assert not call.push(big)  # the window
    told.messages.append(big.data)
    call.wake()
    await pair.flow()
    assert not call.push(Message(b"a part of the one before is still to come"))
    pair.client.increment_flow_control_window(1 << 20)
    pair.client.increment_flow_control_window(1 << 20, stream)
    await pair.flow()
    assert unframed(pair.body(stream))[3:] == [big.data] * 2
    assert (call.messages, call.sent) == (5, sum(PREFIX_BYTES + len(one) for one in unframed(pair.body(stream))))
    pair.link.capacity = 100
    assert not call.push(big)  # the link
    call.finish(OK)
    assert not call.push(Message(b"after the end"))


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from(["push", "wake", "flow"]), st.integers(0, 50_000)), max_size=30), st.booleans()
)
def test_pushed_and_pulled_messages_arrive_in_their_order(steps: list[tuple[str, int]], narrow: bool) -> None:
    asyncio.run(_push_and_pull(steps, 20_000 if narrow else None))


async def _push_and_pull(steps: list[tuple[str, int]], capacity: int | None) -> None:
    """Two streams of one connection that say the same."""
    told = Told()
    pair = Pair(told, capacity=capacity)
    streams = [pair.open(), pair.open()]
    await pair.flow()
    expected: list[bytes] = []
    queued: list[list[bytes]] = [[], []]

    def pulled(number: int) -> Callable[[int], list[bytes]]:
        def take(room: int) -> list[bytes]:
            taken, queued[number] = queued[number][:1], queued[number][1:]
            return taken

        return take

    for number, call in enumerate(told.calls):
        call.source = pulled(number)
    for number, (step, size) in enumerate(steps):
        if step == "flow":
            await pair.flow()
        else:
            message = Message(bytes([number]) * size)
            expected.append(message.data)
            for at, call in enumerate(told.calls):
                if step == "wake" or queued[at] or not call.push(message):
                    queued[at].append(message.data)
                    call.wake()
    for _ in range(len(steps) + 1):
        for call in told.calls:
            call.wake()
        await pair.flow()
    for stream in streams:
        assert unframed(pair.body(stream)) == expected
    pair.session.lost()
    await asyncio.sleep(0)


async def test_a_window_that_shrinks_before_the_call_had_its_turn() -> None:
    told = Told()
    pair = Pair(told)
    stream = pair.open()
    await pair.flow()
    pair.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    told.messages.append(b"hello")
    told.calls[0].wake()
    pair.session.receive(pair.client.data_to_send())
    await pair.flow()
    assert pair.body(stream) == b""
    assert told.calls[0].since is not None
    pair.client.increment_flow_control_window(100, stream)
    await pair.flow()
    assert unframed(pair.body(stream)) == [b"hello"]


async def test_more_than_one_write_takes_is_sent_without_being_asked_again() -> None:
    told = Told()
    pair = Pair(told)
    pair.link.step = 10_000
    pair.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
    stream = pair.open()
    await pair.flow()
    told.messages += [b"x" * 3_000 for _ in range(100)]
    told.calls[0].wake()
    await pair.flow()
    assert unframed(pair.body(stream)) == told.messages


async def test_pings_are_answered_and_do_not_end_the_connection() -> None:
    pair = Pair(echo)
    for number in range(1_000):
        pair.client.ping(struct.pack(">Q", number))
    await pair.flow()
    answers = [event for event in pair.events if isinstance(event, h2.events.PingAckReceived)]
    assert [event.ping_data for event in answers] == [struct.pack(">Q", number) for number in range(1_000)]
    assert not pair.link.is_closed


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (struct.pack(">BI", 0, MAX_REQUEST_BYTES + 1), "8"),
        (framed(b"x", compressed=True), "12"),
    ],
)
async def test_what_is_too_big_or_compressed_is_refused(body: bytes, status: str) -> None:
    pair = Pair(echo)
    stream = pair.open()
    pair.client.send_data(stream, body)
    await pair.flow()
    assert pair.trailers(stream)["grpc-status"] == status
    assert pair.session.calls == 0


async def test_a_call_that_is_not_grpc() -> None:
    pair = Pair(echo)
    stream = pair.open([(name, "GET" if name == ":method" else value) for name, value in HEADERS], end=True)
    await pair.flow()
    assert pair.trailers(stream)[":status"] == "415"


async def test_a_deadline_ends_the_call() -> None:
    async def never(call: Call) -> None:
        await asyncio.Event().wait()

    pair = Pair(never)
    stream = pair.open([*HEADERS, ("grpc-timeout", "1m")], end=True)
    await pair.flow()
    async with asyncio.timeout(10):
        while "grpc-status" not in pair.trailers(stream):
            await asyncio.sleep(0.001)
            await pair.flow()
    assert pair.trailers(stream)["grpc-status"] == "4"


async def test_a_call_that_has_something_to_send_and_ends_at_once_ends_once() -> None:
    told = Told()
    pair = Pair(told)
    first, second = pair.open(), pair.open()
    await pair.flow()
    told.messages.append(b"never sent")
    for call in told.calls:
        call.wake()
    told.calls[0].finish(Status(StatusCode.UNAVAILABLE, "gone"), at_once=True)
    await pair.flow()
    assert (pair.body(first), pair.trailers(first)["grpc-status"]) == (b"", "14")
    assert unframed(pair.body(second)) == told.messages
    assert not pair.link.is_closed
    assert pair.session.calls == 1


async def test_drain_ends_watches_lets_answers_through_and_then_closes() -> None:
    told, held = Told(), asyncio.Event()

    async def late(call: Call) -> None:
        body = await call.read_only()
        await held.wait()
        call.answer(body)
        call.finish(OK)

    handlers: list[Any] = [told, late]
    pair = Pair(lambda call: handlers.pop(0)(call))
    watch, answer = pair.open(), pair.open()
    pair.client.send_data(answer, framed(b"q"), end_stream=True)
    await pair.flow()
    pair.session.drain()
    await pair.flow()
    assert pair.trailers(watch)["grpc-status"] == "14"
    assert len(pair.goaways) == 1
    assert not pair.link.is_closed
    held.set()
    await pair.flow()
    assert unframed(pair.body(answer)) == [b"q"]
    assert pair.link.is_closed


async def test_a_call_given_up_is_cancelled() -> None:
    ended = asyncio.Event()

    async def wait(call: Call) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    pair = Pair(wait)
    stream = pair.open()
    await pair.flow()
    pair.client.reset_stream(stream, 8)
    await pair.flow()
    assert ended.is_set()
    assert pair.session.calls == 0


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = struct.pack(">I", len(payload))[1:] + bytes([kind & 255, flags & 255]) + struct.pack(">I", stream)
    return head + payload


async def _survive(chunks: list[bytes]) -> None:
    async def refuse(call: Call) -> None:
        while await call.read() is not None:
            raise Refused(StatusCode.INTERNAL, "no")

    async def guarded(call: Call) -> None:
        try:
            await refuse(call)
        except Refused as refused:
            call.finish(refused.status)

    link = MemoryLink()
    session = Session(link, guarded, Turn(asyncio.get_running_loop()))
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    for chunk in chunks:
        session.receive(chunk)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(link.fetch()) < 1 << 16
    session.lost()
    await asyncio.sleep(0)
    assert not failures


@settings(max_examples=200)
@given(st.booleans(), st.lists(st.binary(max_size=300), max_size=6))
def test_any_bytes(greeted: bool, chunks: list[bytes]) -> None:
    asyncio.run(_survive([PREFACE, *chunks] if greeted else chunks))


def sensible_frames() -> list[bytes]:
    """What a reader sends that knows how to, after the preface."""
    client = h2.connection.H2Connection(h2.config.H2Configuration())
    client.initiate_connection()
    pieces = [client.data_to_send()[len(PREFACE) :]]
    for stream in (1, 3):
        client.send_headers(stream, HEADERS)
        pieces.append(client.data_to_send())
        client.send_data(stream, framed(b"hello"), end_stream=stream == 3)
        pieces.append(client.data_to_send())
    client.increment_flow_control_window(1000)
    client.reset_stream(1)
    return [*pieces, client.data_to_send()]


FRAMES = st.builds(
    frame,
    st.integers(0, 11),
    st.integers(0, 255),
    st.sampled_from([0, 1, 1, 3, 5, 2, 2**31 + 1]),
    st.binary(max_size=60),
)


@settings(max_examples=300)
@given(st.integers(0, 2**32), st.lists(FRAMES, max_size=12))
def test_frames_without_sense(seed: int, noise: list[bytes]) -> None:
    rng = random.Random(seed)
    client = sensible_frames()
    for piece in noise:
        client.insert(rng.randint(0, len(client)), piece)
    asyncio.run(_survive([PREFACE, *client]))
