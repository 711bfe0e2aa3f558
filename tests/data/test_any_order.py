"""What holds of the order of samples whatever the shards, slots, seed and window are."""

from hypothesis import given
from hypothesis import strategies as st

from ganrun.data.order import Order
from ganrun.slots import Slots
from tests.properties import examples

SEEDS = st.integers(0, 2**32)
EPOCHS = st.integers(0, 5)


@st.composite
def orders(draw):
    sizes = draw(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any))
    slots = draw(st.integers(1, min(sum(sizes), 12)))
    return Order(tuple(sizes), slots, draw(SEEDS), draw(st.integers(1, 5)))


def again(order):
    """The same order, of which nothing has been laid out yet."""
    return Order(order.sizes, order.slots, order.seed, order.window)


def lane(order, epoch, slot):
    """What a slot is shown in an epoch, window after window from its first sample on."""
    position, shown = epoch * order.lane_length, []
    while len(shown) < order.lane_length:
        first, places = order.window_at(slot, position + len(shown))
        assert first == position + len(shown)
        shown += [tuple(place) for place in places.tolist()]
    return shown


@examples(60)
@given(orders(), EPOCHS)
def test_an_epoch_shows_no_sample_twice_and_leaves_out_fewer_than_one_a_slot(order, epoch):
    lanes = [lane(order, epoch, slot) for slot in range(order.slots)]
    shown = [place for each in lanes for place in each]
    assert {len(each) for each in lanes} == {sum(order.sizes) // order.slots}
    assert len(set(shown)) == len(shown)
    assert set(shown) <= {(shard, number) for shard, size in enumerate(order.sizes) for number in range(size)}
    assert 0 <= sum(order.sizes) - len(shown) < order.slots


@examples(60)
@given(orders(), EPOCHS)
def test_a_lane_is_shuffled_and_nothing_else(order, epoch):
    for slot in range(order.slots):
        lain = [(part.shard, number) for part in order.lane(epoch, slot) for number in range(part.start, part.stop)]
        assert sorted(lane(order, epoch, slot)) == sorted(lain)


@examples(60)
@given(orders(), st.data())
def test_a_window_is_the_same_from_whichever_of_its_samples_and_after_whatever_else_it_is_asked_for(order, data):
    slots, length = st.integers(0, order.slots - 1), order.lane_length
    asked = data.draw(st.lists(st.tuples(slots, st.integers(0, 6 * length - 1)), min_size=1, max_size=8))
    for slot, position in asked:
        first, places = order.window_at(slot, position)
        assert first <= position < first + len(places)
        epoch, within = divmod(position, length)
        shown = lane(again(order), epoch, slot)[first - epoch * length :]
        assert [tuple(place) for place in places.tolist()] == shown[: len(places)]
        assert first // length == epoch == (first + len(places) - 1) // length, within


@examples(40)
@given(orders(), EPOCHS, st.data())
def test_workers_that_see_their_own_slots_alone_show_together_what_one_shows(order, epoch, data):
    workers = data.draw(st.integers(1, order.slots))
    owned = [Slots(order.slots, rank, workers).owned for rank in data.draw(st.permutations(range(workers)))]
    shown = {slot: lane(own, epoch, slot) for slots in owned for own in [again(order)] for slot in slots}
    assert shown == {slot: lane(order, epoch, slot) for slot in range(order.slots)}


@examples(40)
@given(orders(), EPOCHS, SEEDS)
def test_the_seed_and_the_epoch_enter_and_the_number_of_slots_moves_only_the_cuts(order, epoch, seed):
    whole = Order(order.sizes, 1, order.seed, order.window).lane(epoch, 0)
    laid = [(part.shard, number) for part in whole for number in range(part.start, part.stop)]
    lanes = [part for slot in range(order.slots) for part in order.lane(epoch, slot)]
    assert [(part.shard, number) for part in lanes for number in range(part.start, part.stop)] == laid[
        : order.lane_length * order.slots
    ]
    large = [Order((40,) * 9, 1, each, 3) for each in (order.seed, seed)]
    assert (lane(large[0], epoch, 0) == lane(large[1], epoch, 0)) == (order.seed == seed)
    assert lane(large[0], epoch, 0) != lane(large[0], epoch + 1, 0)
