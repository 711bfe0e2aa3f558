"""How fast samples come from storage to a tensor, stage by stage, beside plain webdataset on the same shards.

The peer is what webdataset's own documentation begins with: its tar reading, PIL, ToTensor and Normalize for each
sample; the better of none and two worker processes.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import Compose, Normalize, ToTensor

from ganrun.benchmarks.comparison import in_turn, result
from ganrun.config.schema import Config
from ganrun.data.decode import Decoder
from ganrun.data.fetch import FETCHERS, Fetcher
from ganrun.data.index import DataSet, open_data
from ganrun.data.order import Order
from ganrun.data.shard import OpenShard, read_samples
from ganrun.data.stream import Stream
from ganrun.errors import UserError
from ganrun.storage.s3_client import filesystem

REPEATS = 5
PEER_WORKERS = (0, 2)
PEER_SAMPLES = 6_000
"""Of the peer, which is slow, so many are enough."""


def measure(config: Config) -> dict[str, Any]:
    """Samples/s of each stage, of the whole stream and of the peer, in turn."""
    if config.data.fields["image"].kind != "image":
        raise UserError("data.fields.image: not of kind image, but bench data compares how images are decoded")
    torch.set_num_threads(1)
    data = open_data(config.data.shards)
    decoders = max(2, int(config.cluster.cpus_per_worker))
    sides: dict[str, Callable[[], float]] = {
        "raw bytes": lambda: _raw(data),
        "fetch and verify": lambda: _verified(data),
        "and tar walk": lambda: _walked(data),
        "decode alone": lambda: _decoded(config, data, decoders),
        "stream": lambda: _streamed(config, data, decoders),
        **{f"webdataset, {workers} workers": lambda n=workers: _peer(config, data, n) for workers in PEER_WORKERS},  # type: ignore[misc]
    }
    rates = in_turn(sides, REPEATS)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    peer = max(medians.keys() & {f"webdataset, {workers} workers" for workers in PEER_WORKERS}, key=medians.__getitem__)
    return result(
        "data",
        f"plain {peer}",
        "samples/s",
        rates["stream"],
        rates[peer],
        medians["stream"] / min(medians["and tar walk"], medians["decode alone"]),
        sides=rates,
        bottleneck=_bottleneck(medians),
        stages=medians,
    )


def describe(result: dict[str, Any]) -> str:
    """In words."""
    width = max(map(len, result["stages"]))
    lines = [f"{name:<{width}}  {rate:>9,.0f} samples/s" for name, rate in result["stages"].items()]
    return "\n".join(
        [
            *lines,
            f"the stream is {result['ratio']:.1f} times {result['peer']} (median of {result['repeats']} repeats in "
            f"turn, spread {result['spread']:.0%}) and {result['limit_share']:.0%} of the slower of its two halves, "
            f"each alone with all cores; most time goes to: {result['bottleneck']}",
        ]
    )


def _bottleneck(rates: dict[str, float]) -> str:
    """The stage that adds most seconds a sample."""
    seconds = {name: 1 / rate for name, rate in rates.items()}
    added = {
        "fetch": seconds["raw bytes"],
        "verify": seconds["fetch and verify"] - seconds["raw bytes"],
        "tar walk": seconds["and tar walk"] - seconds["fetch and verify"],
        "decode": seconds["decode alone"],
    }
    return max(added, key=added.__getitem__)


def _over_shards(data: DataSet, work: Callable[[int], object]) -> float:
    """Samples/s of doing something to every shard, with as many threads as a stream fetches with."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(FETCHERS) as threads:
        list(threads.map(work, range(len(data.index.shards))))
    return data.index.samples / (time.perf_counter() - begun)


def _raw(data: DataSet) -> float:
    return _over_shards(data, lambda number: len(data.read(number)))


def _verified(data: DataSet) -> float:
    fetcher = Fetcher(data)
    return _over_shards(data, lambda number: len(fetcher.fetch(number)))


def _walked(data: DataSet) -> float:
    fetcher = Fetcher(data)
    # No shard is held, so that the memory is that of a few.
    return _over_shards(data, lambda number: len(fetcher.request(number).result().samples))


def _decoded(config: Config, data: DataSet, decoders: int) -> float:
    """One shard in memory, decoded in batches."""
    opened = OpenShard(data.where(0), read_samples(data.read(0), data.where(0)))
    fields = [Decoder(name, field, data.index) for name, field in config.data.fields.items()]
    samples = [(opened, *sample) for sample in opened.samples]
    begun, size = time.perf_counter(), config.data.batch_size
    with ThreadPoolExecutor(decoders) as threads:
        for start in range(0, len(samples), size):
            for field in fields:
                field.batch(samples[start : start + size], threads, decoders)
    return len(samples) / (time.perf_counter() - begun)


def _streamed(config: Config, data: DataSet, decoders: int) -> float:
    """An epoch of batches, as float tensors in [-1, 1]; from the first batch on."""
    sizes = tuple(shard.samples for shard in data.index.shards)
    order = Order(sizes, config.slots, config.run.seed, config.data.shuffle_shards)
    stream = Stream(data, config.data, order, range(config.slots), 0, decoders=decoders)
    try:
        stream.next()
        turns = max(1, order.lane_length // (config.data.batch_size // config.slots) - 1)
        begun = time.perf_counter()
        for _ in range(turns):
            for batch in stream.next():
                assert isinstance(batch["image"], Tensor)
                batch["image"].float().div_(127.5).sub_(1)
        return turns * config.data.batch_size / (time.perf_counter() - begun)
    finally:
        stream.close()


def _peer(config: Config, data: DataSet, workers: int) -> float:
    batches = iter(_peer_loader(config, data, workers))
    next(batches)
    begun, turns = time.perf_counter(), PEER_SAMPLES // config.data.batch_size
    shown = sum(len(images) for images, _ in itertools.islice(batches, turns))
    return shown / (time.perf_counter() - begun)


def _peer_loader(config: Config, data: DataSet, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    try:
        import webdataset
    except ImportError:
        raise UserError("bench data compares with webdataset: pip install webdataset") from None
    _teach_s3()
    mode = "L" if data.index.channels == 1 else "RGB"
    normalize = Normalize([0.5] * data.index.channels, [0.5] * data.index.channels)
    transform = Compose([ToTensor(), normalize])
    dataset = webdataset.WebDataset(
        [data.where(number) for number in range(len(data.index.shards))], shardshuffle=False, empty_check=False
    ).decode("pil")
    if "label" in config.data.fields:
        dataset = dataset.to_tuple("jpg;png;jpeg;webp", "cls")
    else:
        dataset = dataset.to_tuple("jpg;png;jpeg;webp", "__key__").map_tuple(_same, _nothing)
    dataset = dataset.map_tuple(_Converted(mode, transform), _same).batched(config.data.batch_size)
    context = "spawn" if workers else None  # s3fs does not survive a fork.
    return iter(
        DataLoader(
            dataset, batch_size=None, num_workers=workers, multiprocessing_context=context, worker_init_fn=_teach_s3
        )
    )


class _Converted:
    """PIL image to normalised tensor; a class, since worker processes are spawned with it."""

    def __init__(self, mode: str, transform: Callable[[Any], Tensor]) -> None:
        self.mode, self.transform = mode, transform

    def __call__(self, image: Any) -> Tensor:
        return self.transform(image if image.mode == self.mode else image.convert(self.mode))


def _same(value: Any) -> Any:
    return value


def _nothing(value: Any) -> int:
    return 0


def _teach_s3(worker: int = 0) -> None:
    """Has webdataset read s3:// by s3fs, in this process and in each that it starts."""
    import webdataset

    webdataset.gopen_schemes["s3"] = lambda url, mode="rb", bufsize=8192: filesystem().open(url, mode)
