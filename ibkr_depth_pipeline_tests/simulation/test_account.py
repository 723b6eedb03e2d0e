from hypothesis import given
from hypothesis import strategies as st

from ibkr_depth_pipeline.simulation.account import ClientIds, SlotTable


def test_slots_are_counted_in_distinct_contracts() -> None:
    slots = SlotTable(1)
    assert slots.take("first", 756733, now=0)
    assert slots.take("second", 756733, now=0)
    assert not slots.take("third", 265598, now=0)


def test_slot_is_free_once_its_last_holder_is_gone() -> None:
    slots = SlotTable(1)
    slots.take("first", 1, now=0)
    slots.take("second", 1, now=0)
    slots.release("first", free_at=0)
    assert not slots.take("third", 2, now=1)
    slots.release("second", free_at=1)
    assert slots.take("third", 2, now=1)


def test_released_slot_stays_in_use_until_its_time() -> None:
    slots = SlotTable(1)
    slots.take("first", 1, now=0)
    slots.release("first", free_at=5.0)
    assert not slots.take("second", 2, now=4.9)
    assert slots.take("second", 2, now=5.0)


def test_slots_of_another_client_count() -> None:
    slots = SlotTable(2)
    slots.taken_by_others = 2
    assert not slots.take("first", 1, now=0)
    slots.taken_by_others = 0
    assert slots.take("first", 1, now=0)


def test_lowered_limit_takes_nothing_away() -> None:
    slots = SlotTable(3)
    for contract in (1, 2, 3):
        slots.take(contract, contract, now=0)
    slots.limit = 1
    assert slots.in_use(now=0) == 3
    assert not slots.take(4, 4, now=0)


@given(st.lists(st.tuples(st.sampled_from(["take", "release"]), st.integers(1, 6), st.integers(1, 4)), max_size=60))
def test_slot_table_never_grants_more_contracts_than_the_limit(steps: list[tuple[str, int, int]]) -> None:
    slots = SlotTable(3)
    for now, (what, holder, contract) in enumerate(steps):
        if what == "take":
            slots.take(holder, contract, now)
        else:
            slots.release(holder, now + 2)
        assert slots.in_use(now) <= 3


def test_client_id_is_free_again_after_its_time() -> None:
    ids = ClientIds()
    assert ids.take(7, 1, now=0)
    assert not ids.take(7, 2, now=0)
    ids.release(7, 1, held_until=3.0)
    assert not ids.take(7, 2, now=2.9)
    assert ids.take(7, 2, now=3.0)


def test_connection_that_never_had_the_id_cannot_release_it() -> None:
    ids = ClientIds()
    ids.take(7, 1, now=0)
    ids.release(7, 2, held_until=0)
    assert not ids.take(7, 3, now=0)
