from hypothesis import given
from hypothesis import strategies as st

from policy.ports import EVERYTHING, LAST_PORT, TCP, UDP, Block, PortRange, enclosing, flatten

ports = st.integers(0, LAST_PORT)
ranges = st.tuples(ports, ports).map(sorted)
blocks = ranges.flatmap(lambda ends: st.sampled_from(list(PortRange(TCP, ends[0], ends[1]).blocks())))
some = st.sets(st.one_of(blocks, st.sampled_from([EVERYTHING, Block(TCP, 0, 8), Block(UDP, 0, 8)])), max_size=4)


@given(ranges, ports)
def test_blocks_cover_the_range_and_nothing_else(ends: list[int], port: int) -> None:
    first, last = ends
    found = list(PortRange(TCP, first, last).blocks())
    assert len(found) <= 30
    exact = Block(TCP, port, 24)
    assert any(block.covers(exact) for block in found) is (first <= port <= last)
    assert not any(block.covers(Block(UDP, port, 24)) for block in found)


@given(blocks, blocks)
def test_enclosing_blocks_are_those_that_cover(one: Block, other: Block) -> None:
    assert other.covers(one) is (other in enclosing(one))


@given(some, some, ports, st.sampled_from([TCP, UDP]))
def test_the_longest_block_tells_what_all_say(allow: set[Block], deny: set[Block], port: int, protocol: int) -> None:
    exact = Block(protocol, port, 24)
    table = flatten(allow, deny)
    found = [table[block] for block in enclosing(exact) if block in table]
    denied = any(block.covers(exact) for block in deny)
    expected = None if not denied and not any(b.covers(exact) for b in allow) else not denied
    assert (found[-1] if found else None) is expected


def test_text() -> None:
    texts = [
        str(block) for block in (EVERYTHING, Block(TCP, 0, 8), Block(TCP, 80, 24), Block(UDP, 64, 20), Block(47, 0, 8))
    ]
    assert texts == ["any", "TCP", "TCP:80", "UDP:64-79", "47"]
