"""A collective that times out leaves the record of each rank in the run's folder, and the error names it."""

import json
import re
import time
from datetime import timedelta
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessRaisedException

from ganrun.run_folder.run_folder import RunFolder
from ganrun.storage import open_storage
from ganrun.worker import flight_recorder
from ganrun.worker.host import WorkerHost
from ganrun.worker.worker import run_worker
from tests.conftest import config_of
from tests.ranks import StopAt, as_ranks, run_folder


def hang_on_rank_1(rank, config, rendezvous, told):
    """Work, but rank 1 stops before its third batch, as on a disk that hangs, until rank 0 has written its record."""
    torch.set_num_threads(1)
    flight_recorder.switch_on(str(run_folder(config)))
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2, timeout=timedelta(seconds=10)
    )
    inner, calls = WorkerHost.next_batches, []

    def next_batches(host):
        calls.append(host)
        while rank == 1 and len(calls) > 2 and not told.exists():
            time.sleep(0.1)
        return inner(host)

    with mock.patch.object(WorkerHost, "next_batches", next_batches):
        run_worker(config, rank, 2, torch.device("cpu"), StopAt())


def test_a_rank_that_hangs_is_found_in_the_files(values, tmp_path):
    config = config_of(values)
    told = run_folder(config) / "collectives/0001-rank0.json"
    with pytest.raises(ProcessRaisedException, match=r"timed out; the last ones of rank 0 are in \S*small"):
        as_ranks(hang_on_rank_1, (config, str(tmp_path / "meeting"), told), 2)
    entries = json.loads(told.read_text())["entries"]
    assert {entry["profiling_name"] for entry in entries} >= {"gloo:all_reduce"}


def test_other_errors_are_left_alone(values, tmp_path):
    folder = RunFolder(open_storage(str(tmp_path)))
    with pytest.raises(RuntimeError, match=re.escape("timed out")), flight_recorder.recorded(folder, 1, 0):
        raise RuntimeError("a lookup timed out")  # There is no process group.
    assert list(tmp_path.iterdir()) == []


def test_records_of_the_watchdog_move_to_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for variable in ("TORCH_FR_BUFFER_SIZE", "TORCH_FR_DUMP_TEMP_FILE"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    folder = RunFolder(open_storage(str(tmp_path / "run")))
    flight_recorder.switch_on(folder.storage.uri)
    prefix = flight_recorder.os.environ["TORCH_FR_DUMP_TEMP_FILE"]
    for rank in (0, 3):  # Torch appends the rank.
        with open(f"{prefix}{rank}", "w") as file:
            file.write(f"record {rank}")
    flight_recorder.move_records(folder, 2)
    flight_recorder.move_records(folder, 3)
    moved = {path.name: path.read_text() for path in (tmp_path / "run/collectives").iterdir()}
    assert moved == {"0001-rank0.pickle": "record 0", "0001-rank3.pickle": "record 3"}


def test_a_disk_that_takes_no_folder_ends_no_start(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for variable in ("TORCH_FR_BUFFER_SIZE", "TORCH_FR_DUMP_TEMP_FILE"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    flight_recorder.switch_on("s3://bucket/runs/small")
    assert "TORCH_FR_DUMP_TEMP_FILE" not in flight_recorder.os.environ
