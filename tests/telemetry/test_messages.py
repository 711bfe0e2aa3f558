"""Messages survive every way that they take, and everyone who receives them knows them all."""

import json
import pickle
import re
import signal
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganrun.cli.progress import ProgressDisplay
from ganrun.ray_backend.evaluation_tasks import EvaluationTasks
from ganrun.telemetry import messages, push, records, run_report
from ganrun.telemetry.messages import SEARCH_RECORDS
from ganrun.telemetry.protocol import Address
from ganrun.telemetry.records import EVENT_RECORDS, read_record
from ganrun.telemetry.run_report import PROTOCOL_VERSION, RunReport, TimedNote, parse_report, to_json
from ganrun.telemetry.state import RunHistory, RunState
from ganrun.tune import _told
from ganrun.tuning.population import Population
from ganrun.tuning.reporting import TrialReporter
from tests.conftest import config_of
from tests.telemetry.test_push import heard
from tests.telemetry.test_sidecar import begin
from tests.tuning.making import search
from tests.waiting import WAIT, until

EVENTS, COMMANDS = get_args(messages.Event), get_args(messages.Command)
ALL = tuple(dict.fromkeys([*EVENTS, *COMMANDS, *EVENT_RECORDS, *SEARCH_RECORDS, messages.TrialFailed]))
KINDS = (
    "attempt start left died resize start_from failed finish stop checkpoint checkpoint_failed checkpoint_dropped "
    "best_failed delete_failed score_wanted score_failed profile collapse_suspected rollback schedule exploit leave"
)
"""Of lines of events/*.jsonl, which folders of runs have."""
NUMBERS = st.integers(-(2**53), 2**53)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = {
    str: st.text(),
    int: NUMBERS,
    float: FLOATS,
    bool: st.booleans(),
    bytes: st.binary(),
    NoneType: st.none(),
    Any: st.none() | st.booleans() | NUMBERS | FLOATS | st.text(),
}


def strategy(hint):
    """Values of an annotation."""
    if hint in PLAIN:
        return PLAIN[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return st.one_of(*map(strategy, arguments))
    if isinstance(hint, type) and issubclass(hint, tuple):  # A NamedTuple.
        return st.builds(hint, **{name: strategy(each) for name, each in get_type_hints(hint).items()})
    if isinstance(hint, type) and issubclass(hint, messages.Message):
        return made(hint)
    if origin is list:
        return st.lists(strategy(*arguments), max_size=3)
    return st.dictionaries(*map(strategy, arguments), max_size=3)


def made(message):
    hints = get_type_hints(message)
    return st.builds(message, **{name: strategy(hint) for name, hint in hints.items() if name != "kind"})


def named(classes):
    return pytest.mark.parametrize("message", classes, ids=lambda each: each.__name__)


# Ways.


@named(ALL)
def test_a_message_passes_ray(message):
    @settings(max_examples=15)
    @given(made(message))
    def passes(sent):
        assert pickle.loads(pickle.dumps(sent)) == sent

    passes()


@named([*EVENT_RECORDS, *SEARCH_RECORDS])
def test_a_record_is_read_back_from_its_line(message):
    classes = EVENT_RECORDS if message in EVENT_RECORDS else SEARCH_RECORDS

    @settings(max_examples=15)
    @given(made(message))
    def is_read(written):
        line = json.loads(json.dumps(written.to_line()))
        assert line["kind"] == message.kind
        assert read_record(line, classes) == written

    is_read()


def test_a_kind_is_of_one_class_and_those_on_disk_stay():
    for classes in (EVENTS, COMMANDS, EVENT_RECORDS, SEARCH_RECORDS):
        assert len({each.kind for each in classes}) == len(classes)
    assert {each.kind for each in EVENT_RECORDS} == set(KINDS.split())
    assert {each.kind for each in SEARCH_RECORDS} == {"report", "exploit", "end"}


def test_a_line_begins_with_its_time_and_kind():
    line = records.CollapseSuspected(images=5, symptom="gradient_vanished", message="m").to_line()
    assert list(line)[:2] == ["time", "kind"]
    assert line.keys() == {"time", "kind", "images", "symptom", "message"}


def test_a_line_of_no_class_is_none_and_one_that_lacks_a_field_is_refused():
    assert read_record({"kind": "of a newer ganrun"}, EVENT_RECORDS) is None
    with pytest.raises(TypeError, match="images"):
        read_record({"kind": "checkpoint_dropped", "time": 1.0}, EVENT_RECORDS)


# Receivers.


@named(EVENTS)
def test_everyone_who_hears_the_workers_knows_an_event(message, values):
    config = config_of(values)
    of_search = search(values, population=2)

    @settings(max_examples=5, deadline=None)
    @given(made(message))
    def is_heard(event):
        RunState(config.run, config.train, config.telemetry, RunHistory()).handle(event)
        TrialReporter(Population(of_search), "01").handle(event)
        EvaluationTasks(config.run, config.evaluate, config.cluster, search=False).handle(event)
        _told("01", event)

    is_heard()


def test_a_class_that_is_no_event_is_a_fault_of_the_program(values):
    config = config_of(values)
    state = RunState(config.run, config.train, config.telemetry, RunHistory())
    with pytest.raises(AssertionError, match="unreachable"):
        state.handle(messages.DrainWorkers("resize", "room"))


def test_a_score_that_is_not_finite_is_shown(capsys):
    display = ProgressDisplay(240)
    display.handle(messages.ScoreTaken(60, "FID", None, {"frechet_distance": None}, "e", samples=20))
    assert "FID at 60 images: not finite" in capsys.readouterr().err


# Reports.

REPORT = RunReport(
    run="a",
    trial="",
    series=[("images", {}, 5.0), ("logit", {"side": "real"}, 1.5)],
    place="runs/a",
    interval=5.0,
    ending="failed",
    notes=[TimedNote(1.0, "disk full"), TimedNote(9.0, "1 died", count=3, first_time=2.0)],
    score_name="FID",
    unsaved=True,
    parts={"curve": "1"},
)
WRONG = {
    "run": [5, None],
    "trial": [["x"]],
    "series": [{}, "x", [5], ["images"]],
    "place": [5],
    "interval": ["5", True, None, 10**400, 1e999],
    "ending": [5, ["failed"]],
    "notes": [
        {},
        ["x"],
        [{"time": 1}],
        [{"time": "1", "text": "x"}],
        [{"time": 1, "text": 5}],
        [{"time": 1e999, "text": ""}],
        [{"time": 1, "text": "", "count": "2"}],
        [{"time": 1, "text": "", "first_time": None}],
    ],
    "score_name": [None],
    "unsaved": [1, "yes"],
    "parts": [[], {"curve": 5}],
}
"""Values that are none of a report's field."""


def test_a_report_is_read_back():
    found = parse_report(to_json(REPORT))
    assert to_json(found) == to_json(REPORT)
    assert found.notes == REPORT.notes


def test_a_field_that_is_not_known_is_ignored_and_one_that_may_be_unset_has_its_default():
    least = {"run": "a", "trial": "", "series": []}
    assert parse_report(json.dumps(least | {"news": 1}).encode()) == RunReport("a", "", [], notes=[])


@pytest.mark.parametrize("name", ["run", "trial", "series"])
def test_a_report_without_a_field_is_refused(name):
    content = json.loads(to_json(REPORT))
    del content[name]
    with pytest.raises(ValueError, match=f"{name} is missing"):
        parse_report(json.dumps(content).encode())


@pytest.mark.parametrize("name", WRONG)
def test_a_field_of_another_type_is_refused(name):
    assert WRONG.keys() == RunReport.__dataclass_fields__.keys()
    for value in WRONG[name]:
        with pytest.raises(ValueError, match=rf"{name}: "):
            parse_report(to_json(json.loads(to_json(REPORT)) | {name: value}).replace(b"Infinity", b"1e999"))


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b"\xff", b'{"run": NaN}', b"[" * 100_000])
def test_what_is_no_report_is_refused(body):
    with pytest.raises((ValueError, RecursionError)):
        parse_report(body)


# Versions.


def test_a_driver_of_another_version_is_told_so_in_one_line(values, monkeypatch):
    """A real sidecar, and a driver that speaks the next version."""
    for seconds in ("WAIT_SECONDS", "REQUEST_SECONDS"):
        monkeypatch.setattr(push, seconds, WAIT)
    other = f"/push/v{PROTOCOL_VERSION + 1}"
    monkeypatch.setattr(push, "PUSH", other)
    said = []
    with begin(0) as process:
        try:
            port = int(re.match(r"http://127\.0\.0\.1:(\d+) ", process.stderr.readline())[1])
            pusher = push.Pusher(heard(values), Address(port=port), False, 0.01, said.append)
            until(lambda: not pusher._thread.is_alive())  # It is not asked again.
            assert json.loads(push.request(Address(port=port), "GET", "/runs")[1])["runs"] == []
        finally:
            process.send_signal(signal.SIGTERM)
    (line,) = said
    assert "\n" not in line
    assert f"takes /push/v{PROTOCOL_VERSION} and not {other}: let both be of the same ganrun" in line


def test_the_version_of_the_page_is_that_of_the_reports():
    from ganrun.telemetry.sidecar.server import _constants

    assert f"export const VERSION = {run_report.PROTOCOL_VERSION};" in _constants().decode()
