"""Load of a run on network, storage, CPUs and sidecar for many GPUs, and the first limit that it reaches.

The cost of one round, sample, checkpoint and push is counted on this machine (unit_costs.py), and the reads of many
ranks are simulated (simulated_reads.py). The rest is assumed, by the constants below. The batch grows with the GPUs,
one slot each, and so do the intervals of ticks, scores and checkpoints: in rounds they stay those of the config.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ganrun.benchmarks import memory, unit_costs
from ganrun.benchmarks.simulated_reads import Cache, Reads, play_epoch
from ganrun.config.run_spec import RunSpec
from ganrun.config.schema import DataConfig
from ganrun.data.index import DataSet, open_data
from ganrun.data.order import Order
from ganrun.errors import UserError
from ganrun.slots import Slots
from ganrun.telemetry.protocol import STATE_BYTES
from ganrun.telemetry.sidecar.runs import SAMPLES
from ganrun.worker.broadcast import CHUNK_BYTES

GPUS, NODE_GPUS = (8, 64, 256, 1024), 8
FLOPS, OPERATION_SECONDS = 100e12, 5e-6
"""FLOP/s of a GPU, a third of an A100's peak in bf16; least seconds of an operation, however small."""
NODE_BYTES, LINK_BYTES, STEP_SECONDS, TCP_SECONDS = 200e9, 12.5e9, 20e-6, 50e-6
"""Bytes/s between the GPUs of a node, and of its link to other nodes (100 Gbit/s); seconds of a message between nodes
over NCCL, and between processes over gloo."""
GETS, STORAGE_BYTES = 5_500, 400e6
"""Requests/s of a prefix, as stated for S3; bytes/s of one process that writes or reads a checkpoint."""
RAY_NODES = 2_000
"""Nodes of the largest clusters in Ray's release tests."""
MANY_SHARDS, MANY_SAMPLES, MANY_BYTES = 10_000, 10_000, 30 * 2**20
"""Data set of 100 million samples, simulated for every config."""


@dataclass(frozen=True)
class Units:
    """Counts of a run."""

    spec: RunSpec
    data: DataSet
    round: unit_costs.Round
    stored: unit_costs.Stored
    sample_seconds: float
    shown: dict[int, unit_costs.PushedState]

    @property
    def slot_images(self) -> int:
        """Images per slot and turn."""
        return self.spec.data.batch_size // self.spec.slots

    @property
    def round_images(self) -> int:
        """Real images per slot and round."""
        return self.slot_images * self.round.fresh_turns

    @property
    def round_seconds(self) -> float:
        """Assumed images/s of a GPU that never waits."""
        computed = self.round.flops * self.slot_images / FLOPS
        return max(computed, self.round.operations * OPERATION_SECONDS)

    def named(self) -> dict[str, float | None]:
        """Return each count with its unit."""
        index, counted = self.data.index, self.round
        most, least = self.shown[GPUS[-1]], self.shown[GPUS[0]]
        more = GPUS[-1] - GPUS[0]
        return {
            **{f"bytes_summed_a_turn_of_{name}": size for name, size in counted.gradient_bytes.items()},
            "bytes_summed_a_round_for_norms_a_slot": counted.norm_bytes,
            "bytes_summed_a_tick_a_slot": counted.tick_bytes,
            "sums_a_round": counted.sums,
            "gigaflops_a_real_image": counted.flops / counted.fresh_turns / 1e9,
            "operations_a_round": counted.operations,
            "images_a_slot": self.slot_images,
            "assumed_images_per_second_a_gpu": self.round_images / self.round_seconds,
            "cpu_microseconds_a_sample": 1e6 * self.sample_seconds,
            "shards": len(index.shards),
            "samples_a_shard": index.samples / len(index.shards),
            "bytes_a_sample": sum(shard.bytes for shard in index.shards) / index.samples,
            "bytes_a_checkpoint": self.stored.checkpoint_bytes,
            "requests_a_checkpoint": self.stored.checkpoint_requests,
            "requests_a_resume": self.stored.resume_requests,
            "requests_a_renewal_of_the_lease": self.stored.renewal_requests,
            "series_of_a_run": least.series - 2 * GPUS[0],
            "series_a_gpu": (most.series - least.series) / more,
            "bytes_a_push_a_gpu": (most.push_bytes - least.push_bytes) / more,
        }


def measure(spec: RunSpec) -> dict[str, Any]:
    """Count the costs; estimate the load of every shared resource for each number of GPUs, as a share of its limit."""
    if spec.target.kind != "image":
        raise UserError("data.fields.image: not of kind image, but bench scale counts how images are read")
    torch.set_num_threads(max(1, int(spec.cluster.cpus_per_worker)))
    found, forecast = count(spec), _memory(spec)
    loads = {gpus: load(found, gpus) for gpus in GPUS}
    first = next((gpus for gpus in GPUS if max(loads[gpus].values()) > 1), None)
    last = loads[first or GPUS[-1]]
    return {
        "what": "scale",
        "peer": None,
        "ours": max((gpus for gpus in GPUS if first is None or gpus < first), default=0),
        "theirs": None,
        "unit": "GPUs, of those tried, before anything gives out",
        "ratio": None,
        "limit_share": max(last.values()),
        "repeats": 1,
        "spread": None,
        "bottleneck": max(last, key=last.__getitem__),
        "bottleneck_gpus": first,
        "units": found.named(),
        "loads": {str(gpus): shares for gpus, shares in loads.items()},
        "memory_forecast_bytes": forecast and forecast.total,
        "memory": forecast and forecast._asdict(),
        "resume_read_seconds": found.stored.checkpoint_bytes / STORAGE_BYTES,
        "resume_broadcast_seconds": {
            str(gpus): broadcast_seconds(found.stored.checkpoint_bytes, gpus) for gpus in GPUS
        },
        "lanes": many_lanes(spec.run.seed, spec.data),
    }


def _memory(spec: RunSpec) -> memory.Memory | None:
    """Forecast the memory of a GPU with one slot; None where the user's own code cannot run without numbers."""
    try:
        return memory.forecast(spec)
    except (RuntimeError, NotImplementedError):
        if spec.run.imports:
            return None
        raise


def count(spec: RunSpec) -> Units:
    """Count the costs of a config."""
    data, counted = open_data(spec.data.shards, crop=spec.data.crop), unit_costs.count_round(spec)
    state = unit_costs.played(
        unit_costs.small(spec), Slots(1)
    )  # Afterwards, so that at most two training states are in memory.
    return Units(
        spec,
        data,
        counted,
        unit_costs.count_stored(spec, state),
        unit_costs.sample_seconds(spec.data, data),
        unit_costs.count_shown(spec, state, GPUS),
    )


def load(found: Units, gpus: int) -> dict[str, float]:
    """Return the load of each shared resource as a share of its limit. Above 1, GPUs wait, or requests are refused."""
    nodes, seconds, reads = -(-gpus // NODE_GPUS), found.round_seconds, _reads(found, gpus)
    rate, shown = found.round_images / seconds, found.shown[gpus]
    checkpoint_rounds = found.spec.checkpoint.every_images / (found.spec.slots * found.round_images)
    loads = {
        "all-reduce": _sum_seconds(found, gpus) / seconds,
        "agreeing to go on": math.log2(gpus) * TCP_SECONDS / seconds,
        "CPUs that decode": rate * found.sample_seconds / found.spec.cluster.cpus_per_worker,
        "series of the sidecar": shown.series / SAMPLES,
        "bytes of a push": shown.push_bytes / STATE_BYTES,
        "nodes of Ray": nodes / RAY_NODES,
    }
    if reads:  # There are at least as many samples as GPUs.
        epoch_seconds = reads.shown / (gpus * rate)
        loads["a node's link for shards"] = max(reads.fetched_bytes) / epoch_seconds / LINK_BYTES
        loads["GETs of shards"] = sum(reads.fetched) / epoch_seconds / GETS
    if checkpoint_rounds:
        written = found.stored.checkpoint_bytes / STORAGE_BYTES
        loads["checkpoint after checkpoint"] = written / (checkpoint_rounds * seconds)
    return loads


def broadcast_seconds(size: int, gpus: int) -> float:
    """Estimate the seconds in which rank 0 broadcasts `size` bytes to all GPUs, in chunks down a tree."""
    rate = LINK_BYTES if gpus > NODE_GPUS else NODE_BYTES
    return size / rate + math.ceil(size / CHUNK_BYTES) * math.log2(gpus) * STEP_SECONDS


def many_lanes(seed: int, data: DataConfig, gpus: int = GPUS[-1]) -> dict[str, Any]:
    """Simulate an epoch of the large data set with one lane per GPU, without a cache and with `data.cache_mib`."""
    order = Order((MANY_SAMPLES,) * MANY_SHARDS, gpus, seed, data.shuffle_shards)
    caches = {"none": 0, "data.cache_mib": data.cache_mib}
    reads = {name: _epoch(order, (MANY_BYTES,) * MANY_SHARDS, mib) for name, mib in caches.items()}
    any_ = reads["none"]
    return {
        "gpus": gpus,
        "samples": sum(order.sizes),
        "shown": any_.shown,
        "shown_again": any_.again,
        "lane_lengths": sorted(any_.lanes),
        "most_fetched_of_a_node": {name: max(each.fetched) for name, each in reads.items()},
        "shards_shown_by_a_node": MANY_SHARDS * NODE_GPUS / gpus,
    }


def describe(result: dict[str, Any]) -> str:
    """Describe the result in words."""
    rows = [[f"{'GPUs':<30}", *(f"{gpus:>9,}" for gpus in GPUS)]]
    for name in result["loads"][str(GPUS[0])]:
        shares = [result["loads"][str(gpus)].get(name) for gpus in GPUS]
        rows.append([f"{name:<30}", *("        -" if share is None else f"{share:>9.1%}" for share in shares)])
    lanes, gpus = result["lanes"], result["bottleneck_gpus"]
    fetched = ", ".join(f"{count} with cache {name}" for name, count in lanes["most_fetched_of_a_node"].items())
    sent = ", ".join(
        f"{seconds:.3f} s to {int(count):,}" for count, seconds in result["resume_broadcast_seconds"].items()
    )
    gives_out = f"gives out first, at {gpus:,} GPUs" if gpus else f"is nearest to its limit at {GPUS[-1]:,} GPUs"
    return "\n".join(
        [
            *(f"{name:<42} {value}" for name, value in _printed(result["units"])),
            f"{'memory of a GPU with one slot':<42} {_memory_in_words(result['memory'])}",
            "",
            "shares of what there is (the limits are assumed: see the top of ganrun/benchmarks/scale.py)",
            *("".join(row) for row in rows),
            f"{result['bottleneck']} {gives_out} ({result['limit_share']:.0%})",
            f"a resume: rank 0 reads the checkpoint in {result['resume_read_seconds']:.2f} s, sends it in {sent} GPUs",
            "",
            f"{lanes['samples']:,} samples in {lanes['gpus']:,} lanes: {lanes['shown']:,} shown, "
            f"{lanes['shown_again']} of them again, lanes of {lanes['lane_lengths']}",
            f"shards fetched of a node of {NODE_GPUS}, which shows {lanes['shards_shown_by_a_node']:.0f}: {fetched}",
        ]
    )


def _memory_in_words(parts: dict[str, int] | None) -> str:
    if parts is None:
        return "no forecast: the config's own code reads numbers, which a forecast has not"
    listed = ", ".join(f"{name} {size / 2**20:,.1f}" for name, size in parts.items())
    return f"{sum(parts.values()) / 2**20:,.1f} MiB: {listed}"


def _printed(values: dict[str, float | None]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        text = "not counted: run.storage is a folder" if value is None else f"{value:,.{0 if value >= 100 else 2}f}"
        yield name.replace("_", " "), text.removesuffix(".00")


def _sum_seconds(found: Units, gpus: int) -> float:
    """Estimate the seconds of all-reduces per round: within nodes, then over a ring or tree between them."""
    nodes, counted = -(-gpus // NODE_GPUS), found.round
    size = sum(counted.gradient_bytes[name] * turns for name, turns in counted.turns.items())
    size += gpus * counted.norm_bytes
    within = 2 * (NODE_GPUS - 1) / NODE_GPUS * size / NODE_BYTES
    between = 2 * (nodes - 1) / nodes * size / LINK_BYTES
    return within + between + counted.sums * 2 * math.log2(nodes) * STEP_SECONDS


def _reads(found: Units, gpus: int) -> Reads | None:
    """Simulate an epoch of the config's data; None if there are fewer samples than GPUs."""
    index, spec = found.data.index, found.spec
    if index.samples < gpus:
        return None
    order = Order(tuple(shard.samples for shard in index.shards), gpus, spec.run.seed, spec.data.shuffle_shards)
    return _epoch(order, [shard.bytes for shard in index.shards], spec.data.cache_mib)


def _epoch(order: Order, shard_bytes: Sequence[int], cache_mib: int) -> Reads:
    """Simulate the first epoch, with empty caches."""
    caches = [Cache(cache_mib * 2**20) for _ in range(-(-order.slots // NODE_GPUS))]
    return play_epoch(order, shard_bytes, NODE_GPUS, caches)
