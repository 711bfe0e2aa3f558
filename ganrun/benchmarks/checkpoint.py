"""Time that a checkpoint blocks a round, and time until it is visible, beside `torch.save` and a blocking upload.

Checkpoints go to a temporary folder in `run.storage`.
"""

import io
import statistics
import time
import uuid
from typing import Any

import torch

from ganrun.benchmarks.comparison import result
from ganrun.config.run_spec import RunSpec
from ganrun.data.decode import RawBatch
from ganrun.run_folder.run_folder import RunFolder
from ganrun.slots import Slots
from ganrun.storage import check_rights, open_storage
from ganrun.training.checkpoint import RunProgress, take_snapshot, write
from ganrun.training.new_state import new_state
from ganrun.training.state import TrainingState

REPEATS = 7


def measure(spec: RunSpec) -> dict[str, Any]:
    """Measure seconds blocked and seconds until the manifest is written, for the config's networks after one round."""
    torch.set_num_threads(max(1, int(spec.cluster.cpus_per_worker)))
    place = f"{spec.run.storage}/.bench-{uuid.uuid4().hex[:12]}"
    check_rights(open_storage(spec.run.storage), "run.storage")
    folder = RunFolder(open_storage(place))
    state = _played(spec)
    blocked, arrived, theirs = list[float](), list[float](), list[float]()
    size, taken = 0, None
    try:
        for repeat in range(REPEATS + 1):  # The first warms up.
            begun = time.perf_counter()
            taken = take_snapshot(state.state_dict(), RunProgress(), spec.to_yaml(), taken)
            blocked.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            size = write(folder, f"{repeat}", taken.files(), {})
            arrived.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            folder.storage.write(f"{repeat}.pt", _saved(state))
            theirs.append(time.perf_counter() - begun)
    finally:
        open_storage(spec.run.storage).delete(place.rpartition("/")[2])
    blocked, arrived, theirs = blocked[1:], arrived[1:], theirs[1:]
    seconds, upload = statistics.median(blocked), statistics.median(arrived)
    mib = size / 2**20
    return result(
        "checkpoint",
        "torch.save and a put that the round waits for",
        "MiB a second that the round waits",
        [mib / each for each in blocked],
        [mib / each for each in theirs],
        None,
        bytes=size,
        blocked_seconds=seconds,
        upload_seconds=upload,
        blocked_share=seconds / upload,
    )


def describe(result: dict[str, Any]) -> str:
    """Describe the result in words."""
    return (
        f"a checkpoint of {result['bytes'] / 2**20:.1f} MiB holds up the round for {result['blocked_seconds']:.4f} s "
        f"and is there after {result['upload_seconds']:.3f} s more: {result['blocked_share']:.1%}\n"
        f"{result['peer']}: {result['ratio']:.0f} times as long in the round's way "
        f"(medians of {result['repeats']} repeats in turn, spread {result['spread']:.0%})"
    )


def _played(spec: RunSpec) -> TrainingState:
    """Return a training state after one round, so that its optimizers have moments."""
    slots = Slots(spec.slots)
    state = new_state(spec, torch.device("cpu"), slots)
    size, count = spec.data.image_size, spec.data.batch_size // spec.slots
    batch: RawBatch = {
        "image": torch.zeros(count, spec.data.channels, size, size, dtype=torch.uint8),
        "label": torch.zeros(count, dtype=torch.int64),
    }
    state.round(lambda: [batch] * len(slots.owned))
    return state


def _saved(state: TrainingState) -> bytes:
    """Return the content of a snapshot as `torch.save` writes it."""
    file = io.BytesIO()
    networks = {name: network.state_dict() for name, network in state.game.networks.items()}
    ema = {name: ema.network.state_dict() for name, ema in state.ema.items()}
    optimizers = [player_step.optimizer.state_dict() for player_step in state.player_steps]
    torch.save({"networks": networks, "averages": ema, "optimizers": optimizers}, file)
    return file.getvalue()
