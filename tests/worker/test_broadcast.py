"""Rank 0 alone reads a checkpoint: every rank resumes from the same bits, or raises the error of rank 0."""

import errno
import hashlib
import json
import shutil
from collections import Counter
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from ganrun.errors import DivergedError
from ganrun.run_folder.run_folder import RunFolder
from ganrun.slots import Slots
from ganrun.storage import Folder, TooLargeError, open_storage
from ganrun.training import checkpoint
from ganrun.training.state import TrainingState
from ganrun.worker import broadcast
from ganrun.worker.transitions import Exploit
from ganrun.worker.worker import run_worker
from tests.conftest import config_of
from tests.ranks import StopAt, as_ranks, run_folder, run_ranks
from tests.waiting import WAIT

CPU = torch.device("cpu")
STOP = 60
"""Images of the checkpoint."""
RATE = "optimizer.generator.learning_rate"


def join(rank, ranks, folder):
    """Join the process group, whose timeout ends a test that hangs."""
    torch.set_num_threads(1)
    if ranks > 1:
        seconds = timedelta(seconds=WAIT)
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks, timeout=seconds
        )


def sha(groups):
    """Return a hash of all names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for name, group in sorted(groups.items()):
        for key, tensor in sorted(group.items()):
            digest.update(f"{name}/{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def found(folder, ranks, kind):
    return [json.loads((folder / f"{kind}{rank}").read_text()) for rank in range(ranks)]


# Any tensors.


def odd_tensors():
    stream = torch.Generator().manual_seed(0)
    return {
        "generator": {
            "weight": torch.randn(5, 7, 3, 3, generator=stream).contiguous(memory_format=torch.channels_last),
            "bias": torch.randn(3, dtype=torch.float64, generator=stream),
            "half": torch.randn(11, generator=stream).bfloat16(),
        },
        "none": {},
        "odd": {
            "step": torch.tensor(7.0),
            "flags": torch.tensor([True, False, True]),
            "empty": torch.zeros(4, 2, 0, dtype=torch.float64),
            "count": torch.tensor(2**40 + 1),
            "nan": torch.tensor([float("nan"), -0.0, float("-inf")]),
        },
    }


def shared(rank, ranks, folder, chunk_bytes):
    join(rank, ranks, folder)
    broadcast.CHUNK_BYTES = chunk_bytes
    sent, inner = [], dist.broadcast
    dist.broadcast = lambda tensor, source: sent.append((str(tensor.dtype), tensor.nbytes)) or inner(tensor, source)

    def call():
        assert rank == 0
        return {"images": 12}, odd_tensors()

    value, tensors = broadcast.call_on_rank_0(call, Slots(6, rank, ranks), CPU)
    (folder / f"tensors{rank}").write_text(json.dumps([value, sha(tensors), sent]))


@pytest.mark.parametrize("chunk_bytes", [48, 2**20])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_rank_has_the_bits_of_rank_0_in_messages_of_bounded_size(tmp_path, ranks, chunk_bytes):
    as_ranks(shared, (ranks, tmp_path, chunk_bytes), ranks)
    for value, digest, sent in found(tmp_path, ranks, "tensors"):
        assert (value, digest) == ({"images": 12}, sha(odd_tensors()))
        # What slots.from_rank_0 sends goes another way; a run on one rank sends nothing.
        assert bool(sent) == (ranks > 1)
        assert all(kind == "torch.uint8" and size <= chunk_bytes for kind, size in sent)


# A run.


def resumed(rank, config, ranks, folder, command, harm):
    """Resume until a round is over; record the reads, the state before the first round, and the error."""
    join(rank, ranks, folder)
    reads, states, told = [], [], None
    for name in ("read", "read_version", "list"):
        setattr(Folder, name, noted(getattr(Folder, name), reads, harm))
    inner = TrainingState.round

    def noted_round(self, next_batches):
        tensors, record = self.state_dict()
        networks = {
            name: group for name, group in tensors.items() if name in ("generator", "discriminator", "generator_ema")
        }
        states.append([sha(tensors if self.images else networks), record])
        inner(self, next_batches)

    TrainingState.round = noted_round
    try:
        run_worker(config, rank, ranks, CPU, StopAt(0), command)
    except Exception as error:
        told = [type(error).__name__, str(error)]
    (folder / f"run{rank}").write_text(json.dumps([reads, states[:1], told]))


def noted(inner, reads, harm):
    def ask(self, name="", *arguments):
        reads.append(f"{self.path}/{name}")
        if harm and harm in name:
            raise OSError(errno.EHOSTUNREACH, "No route to host", name)
        return inner(self, name, *arguments)

    return ask


def resume(config, ranks, folder, command=None, harm=None):
    """Resume on so many ranks; return for each its reads of runs, its state before the first round, its error."""
    place = folder / f"ranks{ranks}"
    place.mkdir()
    as_ranks(resumed, (config, ranks, place, command, harm), ranks)
    runs = config.run.storage
    return [([name for name in reads if name.startswith(runs)], *rest) for reads, *rest in found(place, ranks, "run")]


def stop(values, folder, name, **changes):
    """Stop a run at a checkpoint; return its config and the checkpoint's folder."""
    config = config_of(values, run__name=name, objective__ada_target=0.6, **changes)
    run_ranks(config, 1, folder / f"meeting-{name}", stop_at=STOP)
    latest = RunFolder(open_storage(str(run_folder(config)))).pointer("latest")
    return config, run_folder(config) / "checkpoints" / latest.checkpoint


def content(directory):
    """Return the hash of a checkpoint's tensors, and a count of 1 for each of its files."""
    files = checkpoint.read(open_storage(str(directory.parent)), directory.name)
    return sha(checkpoint.parse_groups(files, "x")), Counter(map(str, directory.iterdir()))


def assert_read_once(outcomes, *directories):
    """Check that rank 0 read each file once, and that no other rank asked for anything of any run."""
    for directory in directories:
        read = [name for name in outcomes[0][0] if name.startswith(f"{directory}/")]
        assert Counter(read) == content(directory)[1]
    assert [reads for reads, *_ in outcomes[1:]] == [[]] * (len(outcomes) - 1)


def same_state(outcomes):
    """Check that the states of all ranks are equal to the bit; return one."""
    assert [told for *_, told in outcomes] == [None] * len(outcomes)
    states = [states for _, states, _ in outcomes]
    assert states == [states[0]] * len(outcomes)
    return states[0][0]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_checkpoint_is_read_once_whatever_the_number_of_ranks(values, tmp_path, ranks):
    config, directory = stop(values, tmp_path, "stopped")
    outcomes = resume(config, ranks, tmp_path)
    assert_read_once(outcomes, directory)
    digest, record = same_state(outcomes)
    assert (digest, record["images"]) == (content(directory)[0], STOP)
    assert "loss/generator" in record["recorded"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_donors_checkpoint_is_read_once(values, tmp_path, ranks):
    values["tune"] = {"perturb_every_images": 60, "mutations": {RATE: {"log_uniform": [1e-5, 1e-2]}}}
    values["evaluate"] = {"every_images": 60, "samples": 12}
    (config, own), (donor, theirs) = (stop(values, tmp_path, name, run__seed=len(name)) for name in ("trial", "donor_"))
    exploit = Exploit(1, str(run_folder(donor)), theirs.name, {RATE: 3e-3})
    outcomes = resume(config, ranks, tmp_path, exploit)
    assert_read_once(outcomes, own, theirs)
    assert same_state(outcomes)[0] == content(theirs)[0] != content(own)[0]


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_weights_that_a_run_starts_from_are_read_once_and_nothing_else(values, tmp_path, ranks):
    _, directory = stop(values, tmp_path, "source")
    config = config_of(values, run__name="new", run__start_from=str(directory))
    outcomes = resume(config, ranks, tmp_path)
    digest, record = same_state(outcomes)
    assert record["images"] == 0
    read = Counter(name for name in outcomes[0][0] if name.startswith(f"{directory}/") and name != f"{directory}/")
    networks = ("generator", "discriminator", "generator_ema")
    assert read == Counter(f"{directory}/{name}" for name in ("manifest.json", *(f"{n}.safetensors" for n in networks)))
    assert [reads for reads, *_ in outcomes[1:]] == [[]] * (ranks - 1)
    files = checkpoint.parse_groups(checkpoint.read(open_storage(str(directory.parent)), directory.name), "x")
    assert digest == sha({name: files[name] for name in networks})


# Failures.


def assert_all_raise(outcomes, kind, words):
    for _, states, told in outcomes:
        assert (states, told[0]) == ([], kind)
        assert words in told[1]


def test_a_checkpoint_that_is_corrupt_or_gone_is_so_on_every_rank(values, tmp_path):
    config, directory = stop(values, tmp_path, "stopped")
    weights = directory / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert_all_raise(resume(config, 2, tmp_path), "RunError", "no checkpoint of")
    shutil.rmtree(directory)
    assert_all_raise(resume(config, 3, tmp_path), "RunError", "manifest.json is missing")


def test_a_storage_that_is_away_is_so_on_every_rank(values, tmp_path):
    """Every rank raises an OSError, after which Ray restarts the workers. A RunError would end the run."""
    config, _ = stop(values, tmp_path, "stopped")
    outcomes = resume(config, 2, tmp_path, harm="latest.json")
    assert_all_raise(outcomes, "OSError", "No route to host")
    assert outcomes[1][0] == []


def test_a_source_of_weights_that_is_not_there_is_so_on_every_rank(values, tmp_path):
    config = config_of(values, run__start_from=str(tmp_path / "nowhere"))
    assert_all_raise(resume(config, 2, tmp_path), "UserError", "neither a run with a checkpoint nor a checkpoint")


def test_a_checkpoint_that_does_not_fit_the_config_is_refused_by_every_rank(values, tmp_path):
    config, _ = stop(values, tmp_path, "stopped")
    wider = config_of(values, run__name=config.run.name, model__width=8)
    assert_all_raise(resume(wider, 2, tmp_path), "RunError", "does not fit the networks of this config")


def fail(rank, folder, make):
    join(rank, 2, folder)

    def call():
        raise make()

    try:
        broadcast.call_on_rank_0(call, Slots(2, rank, 2), CPU)
    except Exception as error:
        (folder / f"told{rank}").write_text(json.dumps([type(error).__name__, str(error)]))


def too_large():
    return TooLargeError(2_000, 1_000, "manifest.json")


def fault():
    return KeyError("images")


def diverged():
    return DivergedError("so")


@pytest.mark.parametrize(
    ("make", "first", "others"),
    [
        (
            too_large,
            "TooLargeError",
            ["OSError", f"[Errno {errno.EFBIG}] 2,000 bytes, at most 1,000 are allowed: 'manifest.json'"],
        ),
        (fault, "KeyError", ["RuntimeError", "rank 0 failed: KeyError: 'images'"]),
        (diverged, "DivergedError", ["RunError", "so"]),
    ],
)
def test_a_failure_of_any_kind_reaches_the_other_ranks(tmp_path, make, first, others):
    """TooLargeError cannot be pickled."""
    as_ranks(fail, (tmp_path, make), 2)
    told = found(tmp_path, 2, "told")
    assert (told[0][0], told[1]) == (first, others)
