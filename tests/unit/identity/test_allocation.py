import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.allocation import FIRST_LOCAL, Allocator, IdentitiesExhausted
from identity.numbering import identity_range

TEXTS = st.sampled_from([f"k8s:app=a{number};" for number in range(8)])


def small(count: int = 4) -> Allocator:
    return Allocator(range(0x10000, 0x10000 + FIRST_LOCAL + count))


def settle(allocator: Allocator, labels: str) -> int:
    number = allocator.propose(labels)
    allocator.settle(number, labels)
    return number


@pytest.mark.parametrize("cluster_id", [1, 7, 255])
def test_numbers_are_the_clusters_and_above_the_lowest(cluster_id: int) -> None:
    numbers = identity_range(cluster_id)
    allocator = Allocator(numbers)
    number = allocator.propose("k8s:app=a;")
    assert number in numbers
    assert number & 0xFFFF >= FIRST_LOCAL
    assert allocator.capacity == 65536 - FIRST_LOCAL


def test_the_same_labels_have_the_same_number() -> None:
    allocator = small()
    assert allocator.number_of("a") is None
    number = allocator.propose("a")
    assert allocator.propose("a") == number
    assert allocator.number_of("a") is None  # until etcd has it
    allocator.settle(number, "a")
    assert allocator.number_of("a") == number
    assert allocator.labels_of(number) == "a"
    assert allocator.propose("a") == number


def test_racing_agents_ask_for_the_same_number() -> None:
    assert small().propose("a") == small().propose("a")


def test_a_number_that_somebody_else_took_is_not_asked_for_again() -> None:
    allocator = small()
    number = allocator.propose("a")
    allocator.withdraw("a")
    allocator.settle(number, "b")
    assert allocator.propose("a") != number
    assert allocator.number_of("b") == number


def test_a_withdrawn_number_is_free() -> None:
    allocator = small(1)
    number = allocator.propose("a")
    allocator.withdraw("a")
    allocator.withdraw("a")
    assert allocator.propose("b") == number


def test_exhaustion_says_what_to_do() -> None:
    allocator = small(2)
    numbers = {settle(allocator, text) for text in "ab"}
    assert len(numbers) == len(allocator) == allocator.capacity == 2
    with pytest.raises(IdentitiesExhausted, match=r"all 2 identities .* drop_labels"):
        allocator.propose("c")
    assert allocator.propose("a") in numbers


def test_a_restart_keeps_numbers() -> None:
    allocator = small()
    book = {settle(allocator, text): text for text in "abc"}
    restarted = small()
    assert restarted.restore(book) == set()
    assert {restarted.number_of(text): text for text in "abc"} == book


def test_numbers_that_etcd_has_lost_are_asked_for_again() -> None:
    allocator = small(8)
    taken = settle(allocator, "x")
    number = allocator.propose("a") if taken != allocator.propose("a") else taken
    allocator.settle(number, "a")
    assert allocator.restore({}) == {"x", "a"}
    assert allocator.number_of("a") is None
    assert allocator.propose("a") == number
    assert allocator.propose("x") == taken


def test_numbers_that_etcd_gave_to_others_are_not() -> None:
    allocator = small()
    number = settle(allocator, "a")
    assert allocator.restore({number: "b"}) == {"a"}
    assert allocator.propose("a") != number


def test_of_two_numbers_for_the_same_labels_the_lower_is_used_and_neither_is_free() -> None:
    allocator = small(2)
    low, high = 0x10000 + FIRST_LOCAL, 0x10001 + FIRST_LOCAL
    allocator.restore({high: "a", low: "a"})
    assert allocator.number_of("a") == low
    with pytest.raises(IdentitiesExhausted):
        allocator.propose("b")
    assert dict(allocator.allocations()) == {low: "a", high: "a"}


def test_a_freed_number_goes_to_its_own_labels_or_to_others_last() -> None:
    allocator = small(2)
    first = settle(allocator, "a")
    allocator.free(first)
    assert allocator.number_of("a") is None
    assert len(allocator) == 0
    second = settle(allocator, "b")
    assert second != first
    assert allocator.propose("a") == first
    allocator.withdraw("a")
    allocator.settle(first, "a")
    allocator.free(first)
    assert settle(allocator, "c") == first  # there is no other


def test_freeing_the_second_number_of_the_same_labels_keeps_the_first() -> None:
    allocator = small(2)
    low, high = 0x10000 + FIRST_LOCAL, 0x10001 + FIRST_LOCAL
    allocator.restore({high: "a", low: "a"})
    allocator.free(high)
    assert allocator.number_of("a") == low


@given(st.lists(st.tuples(st.sampled_from(["propose", "settle", "withdraw", "restore", "free"]), TEXTS)))
def test_no_two_label_sets_ever_share_a_number(history: list[tuple[str, str]]) -> None:
    allocator = small()
    book: dict[int, str] = {}  # what etcd holds
    for step, text in history:
        if step == "withdraw":
            allocator.withdraw(text)
        elif step == "restore":
            allocator.restore(book)
        elif step == "free":
            if (known := allocator.number_of(text)) is not None:
                del book[known]
                allocator.free(known)
        else:
            try:
                number = allocator.propose(text)
            except IdentitiesExhausted:
                assert len(book) + len(allocator._asked) >= allocator.capacity
                continue
            assert book.get(number, text) == text
            if step == "settle":
                book[number] = text
                allocator.settle(number, text)
        assert dict(allocator.allocations()) == book
        assert len(set(book.values())) == len(book)
