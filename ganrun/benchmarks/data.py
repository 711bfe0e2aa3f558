"""Samples/s from storage to tensor, by stage, beside webdataset on the same shards.

The peer is the first loader of webdataset's documentation: its tar reader, PIL, ToTensor and Normalize per sample, with
no or two worker processes, whichever is faster. ganrun reads shards with PAX headers through webdataset, so opening a
shard is timed in both formats.
"""

import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import webdataset
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import Compose, Normalize, ToTensor

from ganrun.benchmarks.comparison import in_turn, result
from ganrun.benchmarks.rounds import CPU, changed, waiting
from ganrun.config.run_spec import RunSpec
from ganrun.config.schema import DataConfig
from ganrun.data.cache import ShardCache
from ganrun.data.decode import Decoder
from ganrun.data.fetch import FETCHERS, Fetcher
from ganrun.data.index import DataSet, open_data
from ganrun.data.order import Order
from ganrun.data.shard import OpenShard, read_samples
from ganrun.data.stream import Stream
from ganrun.errors import UserError
from ganrun.storage.s3_client import filesystem

CUDA = torch.device("cuda", 0)
REPEATS = 5
PEER_WORKERS = (0, 2)
PEER_SAMPLES = 6_000
"""Samples of the peer in a repeat: it is slow."""
USTAR, PAX = "open a USTAR shard", "open a PAX shard"
"""Sides that open one shard in memory, without hashing it: in place, or through webdataset."""
FIRST, LATER, GPU = "stream, first epoch", "stream, later epochs", "stream, decoded on the GPU"
"""Sides of the whole stream: the first caches the decoded images, if all fit in `data.cache_mib`. The last one keeps
none, and is measured where there is a GPU, for JPEGs."""


def measure(spec: RunSpec) -> dict[str, Any]:
    """Measure samples/s of each stage, of the whole stream and of the peer, in turn."""
    if spec.target.kind != "image":
        raise UserError("data.fields.image: not of kind image, but bench data compares how images are decoded")
    torch.set_num_threads(1)
    data = open_data(spec.data.shards, crop=spec.data.crop)
    with tempfile.TemporaryDirectory() as folder:
        return _measure(spec, data, Path(folder))


def _measure(spec: RunSpec, data: DataSet, folder: Path) -> dict[str, Any]:
    """Measure with caches of decoded images below a folder."""
    decoders = max(2, int(spec.cluster.cpus_per_worker))
    ustar, pax = _tar(data, mtime=0), _tar(data, mtime=1.5)  # tarfile writes a fraction of a second as a PAX header.
    caches = (ShardCache(folder / str(number), spec.data.cache_mib * 2**20) for number in itertools.count())
    filled = next(caches)
    _streamed(spec, data, decoders, filled)
    sides: dict[str, Callable[[], float]] = {
        "raw bytes": lambda: _raw(data),
        "fetch and verify": lambda: _verified(data),
        "and tar walk": lambda: _walked(data),
        USTAR: lambda: _opened(ustar),
        PAX: lambda: _opened(pax),
        "decode alone": lambda: _decoded(spec.data, data, decoders),
        FIRST: lambda: _streamed(spec, data, decoders, next(caches)),
        LATER: lambda: _streamed(spec, data, decoders, filled),
        **({} if (without := _without_gpu(data)) else {GPU: lambda: gpu_streamed(spec, data, decoders, CUDA)}),
        **{f"webdataset, {workers} workers": lambda n=workers: _peer(spec.data, data, n) for workers in PEER_WORKERS},  # type: ignore[misc]
    }
    rates = in_turn(sides, REPEATS)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    peer = max(medians.keys() & {f"webdataset, {workers} workers" for workers in PEER_WORKERS}, key=medians.__getitem__)
    return result(
        "data",
        f"plain {peer}",
        "samples/s",
        rates[FIRST],
        rates[peer],
        medians[FIRST] / min(medians["and tar walk"], medians["decode alone"]),
        sides=rates,
        later_over_first=medians[LATER] / medians[FIRST],
        bottleneck=_bottleneck(medians),
        gpu_over_first=None if without else medians[GPU] / medians[FIRST],
        without_gpu=without,
        ustar_rate=medians[USTAR],
        pax_rate=medians[PAX],
        stages=medians,
    )


def describe(result: dict[str, Any]) -> str:
    """Describe the result in words."""
    width = max(map(len, result["stages"]))
    gpu = f"not measured: {result['without_gpu']}"
    if result["gpu_over_first"]:
        gpu = f"{result['gpu_over_first']:.1f} times the rate of the first epoch, in each"
    lines = [f"{name:<{width}}  {rate:>9,.0f} samples/s" for name, rate in result["stages"].items()]
    return "\n".join(
        [
            *lines,
            f"in its first epoch the stream is {result['ratio']:.1f} times {result['peer']} (median of "
            f"{result['repeats']} repeats in turn, spread {result['spread']:.0%}) and {result['limit_share']:.0%} of "
            f"the slower of its two halves, each alone with all cores; most of its time goes to: "
            f"{result['bottleneck']}; later epochs, whose images are in the cache, run at "
            f"{result['later_over_first']:.1f} times its rate; a shard with PAX headers, which webdataset reads, opens "
            f"at {result['pax_rate'] / result['ustar_rate']:.1%} of the rate of a plain one",
            f"with data.decode: gpu the stream runs at: {gpu}",
        ]
    )


def _bottleneck(rates: dict[str, float]) -> str:
    """Return the stage that adds the most time per sample."""
    seconds = {name: 1 / rate for name, rate in rates.items()}
    added = {
        "fetch": seconds["raw bytes"],
        "verify": seconds["fetch and verify"] - seconds["raw bytes"],
        "tar walk": seconds["and tar walk"] - seconds["fetch and verify"],
        "decode": seconds["decode alone"],
    }
    return max(added, key=added.__getitem__)


def _over_shards(data: DataSet, work: Callable[[int], object]) -> float:
    """Return samples/s of a function called on every shard, with as many threads as a stream fetches with."""
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
    # Shards are not kept, which bounds the memory.
    return _over_shards(data, lambda number: len(fetcher.request(number).result().samples))


def _tar(data: DataSet, mtime: float) -> bytes:
    """Rewrite the first shard with webdataset."""
    buffer = io.BytesIO()
    with webdataset.TarWriter(buffer, encoder=False, mtime=mtime) as tar:
        for key, members in read_samples(data.read(0), data.where(0)):
            tar.write({"__key__": key} | {extension: bytes(content) for extension, content in members.items()})
    return buffer.getvalue()


def _opened(tar: bytes) -> float:
    begun = time.perf_counter()
    samples = read_samples(tar, "memory")
    return len(samples) / (time.perf_counter() - begun)


def _decoded(settings: DataConfig, data: DataSet, decoders: int) -> float:
    """Return samples/s of decoding one shard in memory, in batches."""
    opened = OpenShard(data.where(0), read_samples(data.read(0), data.where(0)))
    fields = [Decoder(name, field, data.index) for name, field in settings.fields.items()]
    samples = [(opened, *sample) for sample in opened.samples]
    begun, size = time.perf_counter(), settings.batch_size
    with ThreadPoolExecutor(decoders) as threads:
        for start in range(0, len(samples), size):
            for field in fields:
                field.batch(samples[start : start + size], threads, decoders)
    return len(samples) / (time.perf_counter() - begun)


def gpu_streamed(spec: RunSpec, data: DataSet, decoders: int, device: torch.device) -> float:
    """Return samples/s of an epoch that is decoded on a GPU."""
    return _streamed(changed(spec, data__decode="gpu"), data, decoders, None, device)


def _without_gpu(data: DataSet) -> str | None:
    """Return why decoding on a GPU is not measured, or None."""
    if not torch.cuda.is_available():
        return "no GPU"
    _, members = read_samples(data.read(0), data.where(0))[0]
    return None if members.keys() & {"jpg", "jpeg"} else "the images are no JPEGs"


def _streamed(
    spec: RunSpec, data: DataSet, decoders: int, cache: ShardCache | None, device: torch.device | None = None
) -> float:
    """Return samples/s of an epoch of float batches in [-1, 1], after the first batch."""
    sizes, wait = tuple(shard.samples for shard in data.index.shards), waiting(device or CPU)
    order = Order(sizes, spec.slots, spec.run.seed, spec.data.shuffle_shards)
    stream = Stream(data, spec.data, order, range(spec.slots), 0, device, cache, decoders)
    try:
        stream.next()
        turns = max(1, order.lane_length // (spec.data.batch_size // spec.slots) - 1)
        begun = time.perf_counter()
        for _ in range(turns):
            for batch in stream.next():
                assert isinstance(batch["image"], Tensor)
                batch["image"].float().div_(127.5).sub_(1)
        wait()
        return turns * spec.data.batch_size / (time.perf_counter() - begun)
    finally:
        stream.close()


def _peer(settings: DataConfig, data: DataSet, workers: int) -> float:
    batches = iter(_peer_loader(settings, data, workers))
    next(batches)
    begun, turns = time.perf_counter(), PEER_SAMPLES // settings.batch_size
    shown = sum(len(images) for images, _ in itertools.islice(batches, turns))
    return shown / (time.perf_counter() - begun)


def _peer_loader(settings: DataConfig, data: DataSet, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    _teach_s3()
    mode = "L" if data.index.channels == 1 else "RGB"
    normalize = Normalize([0.5] * data.index.channels, [0.5] * data.index.channels)
    transform = Compose([ToTensor(), normalize])
    dataset = webdataset.WebDataset(
        [data.where(number) for number in range(len(data.index.shards))], shardshuffle=False, empty_check=False
    ).decode("pil")
    if "label" in settings.fields:
        dataset = dataset.to_tuple("jpg;png;jpeg;webp", "cls")
    else:
        dataset = dataset.to_tuple("jpg;png;jpeg;webp", "__key__").map_tuple(_same, _nothing)
    dataset = dataset.map_tuple(_Converted(mode, transform), _same).batched(settings.batch_size)
    context = "spawn" if workers else None  # s3fs does not work after a fork.
    return iter(
        DataLoader(
            dataset, batch_size=None, num_workers=workers, multiprocessing_context=context, worker_init_fn=_teach_s3
        )
    )


class _Converted:
    """Transform of a PIL image to a normalised tensor. A class, since spawned workers unpickle it."""

    def __init__(self, mode: str, transform: Callable[[Any], Tensor]) -> None:
        self.mode, self.transform = mode, transform

    def __call__(self, image: Any) -> Tensor:
        return self.transform(image if image.mode == self.mode else image.convert(self.mode))


def _same(value: Any) -> Any:
    return value


def _nothing(value: Any) -> int:
    return 0


def _teach_s3(worker: int = 0) -> None:
    """Make webdataset read s3:// through s3fs, in this process and in its workers."""
    webdataset.gopen_schemes["s3"] = lambda url, mode="rb", bufsize=8192: filesystem().open(url, mode)
