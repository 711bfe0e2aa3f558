"""What keeps runs from training on this machine is found, with what to do about it."""

import json
import shutil
import socket
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch

from ganrun import doctor
from tests.recorded import ganrun


def found(storage, what):
    return [finding for finding in doctor.examine(str(storage)) if finding.what == what]


def test_a_healthy_machine_has_no_fault(tmp_path):
    code, output, error = ganrun("doctor", tmp_path / "runs", "--json")
    said = json.loads(output)
    assert (code, said["faults"], error) == (0, 0, ""), output
    looked_at = {"versions", "packages", "CPU", "memory", "GPU", "Ray", "storage", "disk", "shared memory", "port"}
    assert looked_at <= {finding["what"] for finding in said["findings"]}
    assert all(finding["advice"] == "" for finding in said["findings"] if finding["what"] == "storage")
    assert list(tmp_path.iterdir()) == []
    code, output, _ = ganrun("doctor", tmp_path / "runs")
    assert output.startswith(f"ok     versions      ganrun {said['ganrun']}, Python")


def test_a_place_that_cannot_be_written_is_a_fault(tmp_path):
    (tmp_path / "file").touch()
    code, output, _ = ganrun("doctor", tmp_path / "file" / "runs")
    assert code == 1
    assert "fault  storage       STORAGE: cannot write to" in output
    assert "-> choose a place with read, write, list and delete rights" in output
    (finding,) = found("/proc/runs", "storage")
    assert finding.state == "fault"


def test_a_cluster_that_does_not_answer_is_a_fault(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    (finding,) = found(tmp_path, "Ray")
    assert (finding.state, finding.advice) == ("fault", "start one, or unset it to run on this machine")


def test_full_disks_and_small_shared_memory_are_faults(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=60 * 2**20))
    assert {finding.state for finding in found(tmp_path, "disk")} == {"fault"}
    (finding,) = found(tmp_path, "shared memory")
    assert (finding.state, finding.text) == ("fault", "60 MiB free in /dev/shm")
    assert "--shm-size" in finding.advice


def test_a_port_of_another_program_is_noted(tmp_path, monkeypatch):
    monkeypatch.delenv("GANRUN_SIDECAR", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(
            "ganrun.telemetry.protocol.Address.__new__.__defaults__", ("127.0.0.1", other.getsockname()[1])
        )
        (finding,) = found(tmp_path, "port")
        assert (finding.state, "another program" in finding.text) == ("note", True)
    (finding,) = found(tmp_path, "port")
    assert (finding.state, "is free for the sidecar" in finding.text) == ("ok", True)


def test_missing_and_old_packages_are_faults(tmp_path, monkeypatch):
    version = metadata.version

    def installed(name):
        if name == "omegaconf":
            raise metadata.PackageNotFoundError(name)
        return {"ray": "1.0", "resvg-py": "0.1"}.get(name) or version(name)

    monkeypatch.setattr(metadata, "version", installed)
    wrong = [finding for finding in found(tmp_path, "packages") if finding.state == "fault"]
    assert {finding.text.split()[0].split("<")[0].split(">")[0].split("[")[0] for finding in wrong} == {
        "ray",
        "omegaconf",
    }
    assert all(finding.advice.startswith("pip install '") for finding in wrong)
    (extras,) = found(tmp_path, "extras")
    assert "svg" not in extras.text.split(", ")
    assert "svg" in extras.advice


def test_a_gpu_that_torch_does_not_see_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    (finding,) = found(tmp_path, "GPU")
    assert finding.state == "fault"
    assert "sees no GPU" in finding.text
    monkeypatch.setattr(shutil, "which", lambda name: None)
    (finding,) = found(tmp_path, "GPU")
    assert (finding.state, finding.text) == ("note", "none: runs train on the CPU")


@pytest.mark.skipif(sys.platform != "linux", reason="containers of Linux")
def test_the_limits_of_a_container_are_shown(tmp_path, monkeypatch):
    files = {"/sys/fs/cgroup/cpu.max": "50000 100000", "/sys/fs/cgroup/memory.max": str(2**30)}
    files |= {"/sys/fs/cgroup/memory.current": "0", "/proc/meminfo": "MemAvailable:   999999999 kB"}
    monkeypatch.setattr(doctor, "_read", files.__getitem__)
    (cpu,), (memory,) = found(tmp_path, "CPU"), found(tmp_path, "memory")
    assert cpu.text.endswith("of which a container may use 0.5")
    assert (memory.state, memory.text) == ("note", "1.0 GiB free")
