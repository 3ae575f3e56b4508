"""Maglev tables: the same everywhere, even, by weight, and a change of one moves few of the others."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.maglev import SIZES, _permutation, build_table, encode_table

NAMES = [f"10.0.{n // 250}.{n % 250}:80/TCP" for n in range(100)]


def test_the_table_does_not_depend_on_the_order_of_the_backends() -> None:
    names = NAMES[:20]
    expected = [names[index] for index in build_table(names)]
    for seed in range(5):
        random.Random(seed).shuffle(names)
        assert [names[index] for index in build_table(names)] == expected


@pytest.mark.parametrize("size", SIZES)
def test_every_backend_has_its_even_share(size: int) -> None:
    counts = Counter(build_table(NAMES, size=size))
    assert len(counts) == 100
    assert max(counts.values()) - min(counts.values()) <= 1


def test_shares_follow_weights() -> None:
    weights = [1 + n % 3 for n in range(20)]
    counts = Counter(build_table(NAMES[:20], weights, size=4093))
    for index, weight in enumerate(weights):
        assert abs(counts[index] / 4093 - weight / sum(weights)) < 0.002


@pytest.mark.parametrize(("size", "bound"), [(251, 0.35), (4093, 0.06), (16381, 0.03)])
def test_one_of_a_hundred_that_goes_moves_few_entries_of_the_others(size: int, bound: float) -> None:
    before = [NAMES[index] for index in build_table(NAMES, size=size)]
    for gone in (0, 50, 99):
        left = NAMES[:gone] + NAMES[gone + 1 :]
        after = [left[index] for index in build_table(left, size=size)]
        moved = sum(1 for old, new in zip(before, after, strict=True) if old not in (NAMES[gone], new))
        assert moved / size < bound, moved


HOSTS = st.lists(st.integers(0, 1 << 16), unique=True, min_size=2, max_size=60)


@settings(max_examples=50)
@given(HOSTS, st.data())
def test_whoever_leaves_or_comes_few_entries_of_the_others_move(hosts: list[int], data: st.DataObject) -> None:
    names = [f"10.{host >> 8}.{host & 255}.1:80/TCP" for host in hosts]
    which = data.draw(st.sampled_from(names))
    left = [name for name in names if name != which]
    with_it = [names[index] for index in build_table(names)]
    without = [left[index] for index in build_table(left)]
    moved = sum(1 for one, other in zip(with_it, without, strict=True) if one not in (which, other))
    assert moved / len(with_it) < 0.3, moved


def by_the_paper(names: list[str], weights: list[int], size: int) -> list[int]:
    """The same, step by step as the paper has it."""
    order = sorted(range(len(names)), key=names.__getitem__)
    credit = [max(weights) - weights[index] for index in order]
    table = [-1] * size
    ways = []
    for index in order:
        start, stride = _permutation(names[index], size)
        ways.append(iter([(start + n * stride) % size for n in range(size)]))
    while True:
        for turn, index in enumerate(order):
            credit[turn] += weights[index]
            if credit[turn] < max(weights):
                continue
            credit[turn] -= max(weights)
            table[next(entry for entry in ways[turn] if table[entry] < 0)] = index
            if -1 not in table:
                return table


@settings(max_examples=60)
@given(HOSTS, st.sampled_from([251, 509]), st.integers(1, 20), st.randoms())
def test_the_table_is_that_of_the_paper(hosts: list[int], size: int, most: int, random_: random.Random) -> None:
    names = [f"10.{host >> 8}.{host & 255}.1:80/TCP" for host in hosts]
    weights = [random_.randint(1, most) for _ in names]
    assert build_table(names, weights, size=size) == by_the_paper(names, weights, size)


def test_numbers_are_written_as_the_map_holds_them() -> None:
    assert encode_table([1, 0, 1], [5, 9]).hex() == "090000000500000009000000"


@pytest.mark.parametrize("count", [0, 252])
def test_a_table_takes_no_more_backends_than_it_has_entries(count: int) -> None:
    with pytest.raises(ValueError, match="251"):
        build_table([str(n) for n in range(count)])
