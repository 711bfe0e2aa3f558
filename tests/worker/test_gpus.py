"""GPUs of several kinds in one run are told in one line; the run continues."""

import torch
import torch.distributed as dist

from ganrun.slots import Slots
from ganrun.worker.gpus import of_several_kinds, warn_of_mixed_gpus


def test_gpus_of_several_kinds_are_named_with_their_ranks():
    assert of_several_kinds(["H200", "L4", "H200"]) == (
        "cluster: GPUs of several kinds: H200 (ranks 0, 2); L4 (ranks 1); a round takes as long as on the slowest one, "
        "and results depend on which rank has which, since kinds round and draw noise over pixels differently"
    )
    assert of_several_kinds(["H200", "H200"]) is None


def test_names_are_gathered_from_all_ranks(monkeypatch, caplog):
    def gather(names, mine):
        names[:] = ["L4", mine]

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H200")
    monkeypatch.setattr(dist, "all_gather_object", gather)
    for device, slots in (("cpu", Slots(2, 1, 2)), ("cuda", Slots(2)), ("cuda", Slots(2, 1, 2))):
        assert not caplog.messages
        warn_of_mixed_gpus(torch.device(device), slots)
    (line,) = caplog.messages
    assert "L4 (ranks 0); H200 (ranks 1)" in line
