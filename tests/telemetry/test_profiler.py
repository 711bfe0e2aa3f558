"""A profile of some rounds: the trace nests as a round does, the page sums it up, and it is made once."""

import gzip
import json
import re

import pytest

from tests.conftest import config_of
from tests.ranks import run_ranks

ROUNDS = 3
PHASES = [
    f"{player}: {phase}" for player in ("discriminator", "generator") for phase in ("forward", "backward", "step")
]


@pytest.fixture
def run(values, tmp_path):
    """Runs so far, with so many rounds to profile, on so many ranks; the run's folder."""

    def ran(images=240, rounds=ROUNDS, ranks=1, **changes):
        config = config_of(
            values, train__total_images=images, train__tick_images=60, train__profile_rounds=rounds, **changes
        )
        run_ranks(config, ranks, tmp_path / f"meeting{images}-{rounds}")
        return tmp_path / "runs/small"

    return ran


def spans_of(folder, rank=0):
    trace = json.loads(gzip.decompress((folder / f"profile/{ROUNDS}-rounds/rank{rank}.json.gz").read_bytes()))
    return [event for event in trace["traceEvents"] if event.get("cat") == "user_annotation"]


def inside(inner, outer):
    return outer["ts"] <= inner["ts"] and inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"] + 1


def test_marks_nest_as_a_round_does(run):
    spans = spans_of(run())
    by_name = {name: [span for span in spans if re.fullmatch(name, span["name"])] for name in (r"ProfilerStep#\d+",)}
    rounds = by_name[r"ProfilerStep#\d+"]
    assert len(rounds) == ROUNDS
    for player in ("discriminator", "generator"):
        turns = [span for span in spans if span["name"] == f"{player}: turn"]
        assert len(turns) == ROUNDS
        for turn in turns:
            assert sum(inside(turn, each) for each in rounds) == 1
    for phase in PHASES:
        turns = [span for span in spans if span["name"] == f"{phase.split(':')[0]}: turn"]
        found = [span for span in spans if span["name"] == phase]
        slots = 1 if phase.endswith("step") else 6
        assert len(found) == ROUNDS * slots
        assert all(sum(inside(each, turn) for turn in turns) == 1 for each in found)
    assert len([span for span in spans if span["name"] == "data"]) == ROUNDS


def test_the_page_has_every_phase_and_its_shares_are_of_a_whole(run):
    page = (run() / f"profile/{ROUNDS}-rounds/summary.md").read_text()
    assert page.startswith(f"# {ROUNDS} rounds, ")
    shares = {name: float(share) for name, share in re.findall(r"^\| ([a-z: ]+) \| [\d.]+ \| ([\d.]+)% \|", page, re.M)}
    assert {"data", "ema", *PHASES} <= shares.keys()
    turns = shares["discriminator: turn"] + shares["generator: turn"]
    assert sum(shares[phase] for phase in PHASES) <= turns <= 100
    assert "aten::" in page
    assert "## Memory" in page
    assert "aten::_local_scalar_dense" in page


def test_it_begins_after_the_first_tick(run):
    # The first tick is at 60 of 12 a round; then come 5 rounds of warming up, and 3 that are kept.
    folder = run()
    (event,) = events(folder)
    assert event["images"] == 60 + 12 * (5 + ROUNDS)
    assert event["files"] == [f"profile/{ROUNDS}-rounds/summary.md", f"profile/{ROUNDS}-rounds/rank0.json.gz"]
    assert "perfetto" in event["message"]


def test_a_resumed_run_is_profiled_again_only_if_asked(run):
    folder = run(images=240)
    run(images=480)
    assert len(events(folder)) == 1
    run(images=720, rounds=2)
    assert len(events(folder)) == 2
    assert sorted(path.name for path in (folder / "profile").iterdir()) == ["2-rounds", f"{ROUNDS}-rounds"]


def test_each_rank_has_its_trace(run):
    folder = run(ranks=2)
    assert all(spans_of(folder, rank) for rank in (0, 1))
    assert len(events(folder)) == 1


def test_a_run_that_is_too_short_says_so(run):
    (event,) = events(run(images=120))
    assert "ended before" in event["message"]


def test_a_profile_changes_nothing_that_is_trained(run, values, tmp_path):
    profiled = run()
    config = config_of(values, run__name="plain", train__tick_images=60)
    run_ranks(config, 1, tmp_path / "meeting")
    name = "checkpoints/000000000240-0001/generator.safetensors"
    assert (profiled / name).read_bytes() == (tmp_path / "runs/plain" / name).read_bytes()


def events(folder):
    lines = [line for path in sorted((folder / "events").iterdir()) for line in path.read_text().splitlines()]
    return [event for event in map(json.loads, lines) if event["kind"] == "profile"]
