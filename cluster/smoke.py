"""Smoke test for new GPU machines: compares ranks, devices, precisions and layouts, and prints a table.

    python cluster/smoke.py                              on a machine with GPUs; without, only the checks of a CPU
    python cluster/smoke.py --storage s3://BUCKET/runs   with RAY_ADDRESS set: also a run over all GPUs of all nodes

Takes a few minutes, on a CPU too. Exits with 0 if nothing differs or fails. Skipped checks print the reason.
"""

import argparse
import copy
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial

import smoke_parts
import torch
from smoke_parts import (
    CONFIG,
    CPU,
    EXACT,
    HALF,
    ROUNDED,
    ROUNDS,
    SLOTS,
    Row,
    SkippedError,
    batch_of,
    gradients,
    losses_of,
    need_cuda,
    per_second,
    same,
    settings,
    state_of,
    stream,
    trained,
)
from torch import Tensor

from ganrun.benchmarks import gpu_step
from ganrun.benchmarks.gpu_step import launches
from ganrun.benchmarks.rounds import changed, rounds
from ganrun.config.load import load_config
from ganrun.config.ray_variables import cluster_address
from ganrun.config.run_spec import RunSpec, resolve
from ganrun.config.shipped import find, purposes
from ganrun.errors import UserError
from ganrun.games.build import build_game
from ganrun.run_folder.curve import read_curve
from ganrun.slots import Slots
from ganrun.storage import open_storage
from ganrun.training import cuda_graph
from ganrun.training.cuda_graph import captured_rounds
from ganrun.training.cuda_segment import Segment
from ganrun.training.new_state import state_of as state_over

SHARING_NCCL = (2, 30)
"""NCCL that lets two ranks share a GPU."""
WIDEST, LARGEST = 16, 128
"""Width and image size of the configs that are captured, at most: recorded operations keep all that they made, and
512x512 images took 20 GB."""


def main() -> int:
    """Run all checks. Return 1 if one differs or fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", metavar="URI", help="storage that all nodes can reach, for the run over all nodes")
    options = parser.parse_args()
    device = torch.device("cuda", 0) if torch.cuda.is_available() else CPU
    name = torch.cuda.get_device_name(0) if device.type == "cuda" else "no CUDA device: checks run on the CPU"
    print(f"torch {torch.__version__}, {torch.cuda.device_count()} GPUs ({name})", flush=True)
    checks: dict[str, Callable[[], Iterator[Row]]] = {
        "2 ranks over gloo against 1": lambda: ranks("cpu"),
        "ranks over NCCL against 1": lambda: ranks("cuda"),
        "CUDA against the CPU": against_cpu,
        "bf16 against float32": lambda: precisions(device),
        "channels_last against contiguous": lambda: layouts(device),
        "torch.compile against eager": lambda: compiled(device),
        "captured rounds against eager ones": captured,
        "rounds of every family are captured": families,
        "rates beside the example": lambda: rates(device),
        "batches through pinned memory": pinned,
        "a round without a host sync": no_sync,
        "a run over all nodes": lambda: nodes(options.storage),
    }
    failed, begun = False, time.perf_counter()
    for what, check in checks.items():
        for row in rows_of(what, check):
            print(f"{row.what:<36} {row.found:<62} {row.verdict}", flush=True)
            failed = failed or row.verdict in ("DIFFERS", "FAILED")
    print(f"{time.perf_counter() - begun:.0f} s")
    return int(failed)


def rows_of(what: str, check: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """Run a check and yield its rows, or one row if it is skipped or raises."""
    try:
        yield from check()
    except SkippedError as why:
        yield Row(what, "", f"skipped: {why}")
    except Exception as error:  # Later checks must still run.
        traceback.print_exc()
        yield Row(what, f"{type(error).__name__}: {error}".splitlines()[0][:200], "FAILED")


def ranks(kind: str) -> Iterator[Row]:
    """Compare several ranks with one rank that owns the same slots: as many as GPUs, or two that share one."""
    count = 2
    if kind == "cuda" and need_cuda() > 1:
        count = SLOTS
    elif kind == "cuda" and torch.cuda.nccl.version() < SHARING_NCCL:
        raise SkippedError(f"one CUDA device, and NCCL {torch.cuda.nccl.version()} cannot share it")
    what = f"{count} ranks over {'NCCL' if kind == 'cuda' else 'gloo'} against 1"
    yield same(what, f"weights, {ROUNDS} rounds in float64", trained(count, kind), trained(1, kind), EXACT)


def against_cpu() -> Iterator[Row]:
    """Compare the same run on CUDA and on the CPU. Noise is drawn on the CPU in both."""
    need_cuda()
    yield same(
        "CUDA against the CPU", f"weights, {ROUNDS} rounds in float64", trained(1, "cuda"), trained(1, "cpu"), EXACT
    )


def precisions(device: torch.device) -> Iterator[Row]:
    """Compare losses of bf16 and float32 in the first rounds, before runs diverge chaotically; measure images/s."""
    states = {name: state_of(name, device) for name in ("float32", "bf16")}
    losses = {name: losses_of(state) for name, state in states.items()}
    yield same("bf16 against float32", "losses of 3 rounds", losses["bf16"], losses["float32"], HALF)
    for name, state in states.items():
        batch = batch_of(state)
        rate = state.batch_size * per_second(partial(state.round, lambda: [batch]), device)  # noqa: B023
        yield Row("", f"{rate:,.0f} images/s of rounds in {name}", "")


def layouts(device: torch.device) -> Iterator[Row]:
    """Compare channels_last, the layout of training, with the contiguous layout."""
    found = []
    config = settings("float64")  # float32 is TF32 on a GPU, whose rounding depends on the layout.
    for layout in (torch.contiguous_format, torch.channels_last):
        game = build_game(config, device)
        for network in game.networks.values():
            network.to(memory_format=layout)
        found.append(losses_of(state_over(game, config, Slots(1))))
    yield same("channels_last against contiguous", "losses of 3 rounds in float64", *found, EXACT)


def captured() -> Iterator[Row]:
    """Compare captured rounds with eager ones, and measure both: lines of the capture, launches, memory."""
    need_cuda()
    wait = torch.cuda.synchronize
    for precision, limit in (("float64", EXACT), ("float32", ROUNDED)):
        found: list[list[Tensor]] = []
        lines: list[str] = []
        for mode in ("off", "on"):
            torch.cuda.reset_peak_memory_stats()
            state = state_of(precision, torch.device("cuda", 0))
            batch = batch_of(state)
            play = partial(state.round, lambda batch=batch: [batch])
            with captured_rounds(state, mode, lines.append):  # type: ignore[arg-type]
                for _ in range(49):
                    play()
                memory = torch.cuda.max_memory_allocated() / 2**20
                lines.append(f"capture {mode}: {launches(play, wait)} launches a round, {memory:,.0f} MiB")
            found.append([each.detach().clone() for each in state.game.networks["generator"].parameters()])
        yield same("captured rounds against eager ones", f"weights after 50 rounds in {precision}", *found, limit)
        yield from (Row("", line, "") for line in lines)


def families(device: torch.device | None = None, segment: Callable[[], Segment] | None = None) -> Iterator[Row]:
    """Capture a small round of each kind of game among the configs that travel with ganrun.

    Args:
        device: None: the first GPU.
        segment: makes a segment of captured rounds; None: CUDA graphs.
    """
    if device is None:
        need_cuda()
        device = torch.device("cuda", 0)
    os.environ.setdefault("GANRUN_BUCKET", "bucket")  # Named by some configs; nothing is read.
    seen = set()
    for name in purposes():
        file = find(name)
        assert file is not None
        small = ["cluster.workers=1", "data.slots=1", "data.batch_size=8", "train.precision=float32"]
        spec = resolve(load_config(file, small))
        objective = spec.objective
        kind = (spec.model.name, objective.game, objective.condition, objective.loss, *objective.penalties)
        if kind in seen:
            continue
        seen.add(kind)
        yield family(name, spec, device, segment)


def family(name: str, spec: RunSpec, device: torch.device, segment: Callable[[], Segment] | None) -> Row:
    """Play rounds of a config until one is captured."""
    what, lines = f"  {name}", list[str]()
    width, size = min(spec.model.width, WIDEST), min(spec.data.image_size, LARGEST)
    spec = changed(spec, model__width=width, data__image_size=size, train__capture="on")
    try:
        _, play = rounds(spec, None, None, device, lines.append, segment)
        for _ in range(4 * (cuda_graph.WARM_UP + 2)):  # There may be several kinds of rounds.
            if lines:
                break
            play()
    except UserError as error:
        return Row(what, str(error)[:200], "FAILED")
    return Row(
        what,
        lines[0].removeprefix("train.capture: ") if lines else "no round was captured",
        "same" if lines else "FAILED",
    )


def rates(device: torch.device) -> Iterator[Row]:
    """Measure rounds of DCGAN beside the example's step and the lean graph."""
    need_cuda()
    spec = resolve(load_config(CONFIG.with_name("dcgan_64.yaml"), ["data.batch_size=128", "objective.diffaugment=[]"]))
    found = gpu_step.measure(spec, device, smoke_parts.SECONDS, 3, None)
    yield from (Row("", line.strip()[:120], "") for line in gpu_step.describe(found).splitlines())


def compiled(device: torch.device) -> Iterator[Row]:
    """Compare forward and backward pass of each network with its compiled form; measure images/s."""
    config, random = settings("float32"), torch.Generator().manual_seed(0)
    networks, data = build_game(config, device).networks, config.data
    shapes = {
        "generator": (data.batch_size, config.model.latent_size),
        "discriminator": (data.batch_size, data.channels, data.image_size, data.image_size),
    }
    for name, shape in shapes.items():
        inputs, eager = torch.randn(shape, generator=random).to(device), networks[name]
        compiled_network = torch.compile(copy.deepcopy(eager))
        outputs = [gradients(network, inputs) for network in (eager, compiled_network)]
        yield same(f"torch.compile of the {name}", "output and gradients in float32", *outputs, ROUNDED)
        calls = [partial(gradients, network, inputs) for network in (eager, compiled_network)]
        rates = [data.batch_size * per_second(call, device) for call in calls]
        yield Row("", f"{rates[1]:,.0f} images/s compiled, {rates[0]:,.0f} eager: {rates[1] / rates[0]:.2f} times", "")


def pinned() -> Iterator[Row]:
    """Compare batches that go through pinned memory and a CUDA copy stream with batches on the CPU."""
    need_cuda()
    config, differing = settings("float32"), 0
    streams = [stream(config, Slots(SLOTS), device) for device in (torch.device("cuda", 0), CPU)]
    for _ in range(50):
        there, here = (each.next() for each in streams)
        differing += not all(torch.equal(a["image"].cpu(), b["image"]) for a, b in zip(there, here, strict=True))
    for each in streams:
        each.close()
    yield Row("batches through pinned memory", f"{differing} of 50 differ", "DIFFERS" if differing else "same")


def no_sync() -> Iterator[Row]:
    """Check that a round whose batch is on the GPU never syncs the device."""
    need_cuda()
    state = state_of("bf16", torch.device("cuda", 0))
    batch = batch_of(state)
    for _ in range(3):
        state.round(lambda: [batch])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            state.round(lambda: [batch])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    yield Row("a round without a host sync", "20 rounds under set_sync_debug_mode('error')", "same")


def nodes(storage: str | None) -> Iterator[Row]:
    """Train a short run over all GPUs of the cluster."""
    if cluster_address() is None:
        raise SkippedError("RAY_ADDRESS is not set")
    import ray

    ray.init(log_to_driver=False)
    found = [node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]]
    ray.shutdown()
    if sum(count > 0 for count in found) < 2:
        raise SkippedError(f"the cluster has {sum(count > 0 for count in found)} nodes with GPUs")
    if not storage:
        raise SkippedError("--storage is not given")
    workers, name = int(sum(found)), f"smoke-{time.time():.0f}"
    changes = [f"run.storage={storage}", f"run.name={name}", f"cluster.workers={workers}", "cluster.gpus_per_worker=1"]
    changes += [f"data.slots={workers}", f"data.batch_size={32 * workers}", f"train.total_images={3200 * workers}"]
    changes += [f"train.tick_images={640 * workers}", "evaluate.every_images=0"]
    subprocess.run([sys.executable, "-m", "ganrun.train", CONFIG, *changes], check=True)
    rates = [line["images_per_second"] for line in read_curve(open_storage(f"{storage}/{name}"))[0]]
    yield Row("a run over all nodes", f"{workers} GPUs, {rates[-1]:,.0f} images/s at its last tick", "same")


if __name__ == "__main__":
    sys.exit(main())
