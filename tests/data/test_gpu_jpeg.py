"""`data.decode: gpu`: everything around nvJPEG, with torchvision's decoder of the CPU in its place."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ganrun.benchmarks import data as bench_data
from ganrun.cli import preflight
from ganrun.config.load import load_config
from ganrun.config.run_spec import resolve
from ganrun.config.schema import DataConfig, FieldConfig
from ganrun.config.validate_cluster import decode_conflicts
from ganrun.data.gpu_jpeg import GpuDecoder
from ganrun.data.index import Index, open_data
from ganrun.data.order import Order
from ganrun.data.stream import Stream
from ganrun.errors import UserError
from ganrun.run_folder import run_config
from ganrun.run_folder.run_folder import Pointer, RunFolder
from ganrun.storage import open_storage
from tests.conftest import config_of, png, write_shards, write_yaml
from tests.gpu import GPU
from tests.preparation.making import folder_of, prepare

CPU = torch.device("cpu")
FIELDS = {"image": FieldConfig(kind="image"), "label": FieldConfig(kind="label")}
GPU_FIELDS = {"cluster__gpus_per_worker": 1, "data__decode": "gpu"}


def jpeg(number, size=16, channels=3):
    """Encode smooth pixels at full colour resolution, on which decoders differ by rounding alone."""
    random = np.random.default_rng(number)
    small = Image.fromarray(random.integers(0, 256, (4, 4, channels), np.uint8).squeeze())
    file = io.BytesIO()
    small.resize((size, size), Image.Resampling.BILINEAR).save(file, "jpeg", quality=95, subsampling=0)
    return file.getvalue()


def write(folder, contents, channels=3):
    """Write a shard with these images and labels by number, with its index."""
    shards = write_shards(folder, (len(contents),), lambda number: {"jpg": contents[number], "cls": b"1"})
    (folder / "index.json").write_bytes(Index(16, channels, ("a", "b"), shards).to_json())
    return str(folder)


def epoch(shards, decode, crop=None, mirror=False, channels=3, device=CPU, **options):
    """Return the images of an epoch and their labels."""
    data = open_data(shards, crop=crop).trained_on(0.0, mirror=mirror)
    config = DataConfig(
        shards="x",
        image_size=crop or 16,
        channels=channels,
        batch_size=data.samples,
        slots=1,
        fields=FIELDS,
        mirror=mirror,
        crop=crop,
        decode=decode,
        **options,
    )
    stream = Stream(data, config, Order(data.sizes, 1, 1, 2), [0], 0, device)
    try:
        (batch,) = stream.next()
        return batch["image"], batch["label"], stream.corrupt_samples.skipped
    finally:
        stream.close()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("options", [{}, {"crop": 10}, {"mirror": True}, {"crop": 8, "mirror": True}], ids=str)
def test_images_and_labels_are_those_of_the_other_decoder(tmp_path, options, channels):
    shards = write(tmp_path / "data", [jpeg(number, channels=channels) for number in range(5)], channels)
    (theirs, labels, _), (mine, same, _) = (
        epoch(shards, decode, channels=channels, **options) for decode in ("cpu", "gpu")
    )
    assert mine.shape == theirs.shape
    assert mine.dtype == torch.uint8
    assert torch.equal(labels, same)
    assert int((mine.int() - theirs.int()).abs().max()) <= 2  # Two builds of libjpeg.


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            png(np.zeros((16, 16, 3), np.uint8)),
            "image of sample '000001' is no JPEG, which data.decode: gpu asks for; set data.decode: cpu",
        ),
        (jpeg(0)[:200], "image of sample '000001' is not a readable image: "),
        (jpeg(0)[:20], "image of sample '000001' is not a readable image: "),
        (jpeg(0, size=24), "image of sample '000001' is 3x24x24 uint8, but must be 3x16x16"),
        (jpeg(0, channels=1), "image of sample '000001' is 1x16x16 uint8, but must be 3x16x16"),
    ],
    ids=["png", "cut short", "no header", "other size", "grey"],
)
def test_what_cannot_be_decoded_is_named_or_replaced(tmp_path, content, reason):
    shards = write(tmp_path / "data", [jpeg(0), content, jpeg(2)])
    with pytest.raises(UserError) as error:
        epoch(shards, "gpu")
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    images, _, skipped = epoch(shards, "gpu", damaged_share=0.5)
    assert skipped >= 1  # The second epoch is read ahead.
    assert images.shape == (3, 3, 16, 16)


def test_a_torchvision_without_nvjpeg_is_told(tmp_path, monkeypatch):
    def decode(*arguments, **options):
        raise RuntimeError("decode_jpegs_cuda: torchvision not compiled with nvJPEG support\nmore lines")

    monkeypatch.setattr("ganrun.data.gpu_jpeg.decode_jpeg", decode)
    with pytest.raises(UserError, match=r"without|not compiled with nvJPEG support; if the GPU reads none, set data\."):
        epoch(write(tmp_path / "data", [jpeg(0), jpeg(1)]), "gpu")


def test_a_gpu_decoder_needs_a_gpu(values):
    ((keys, fault),) = decode_conflicts(config_of(values, data__decode="gpu"))
    assert keys == {"data.decode", "cluster.gpus_per_worker"}
    assert fault.startswith("data.decode: gpu needs a GPU, but cluster.gpus_per_worker is 0")
    assert not list(decode_conflicts(config_of(values, **GPU_FIELDS)))


def test_data_with_other_images_than_jpegs_is_refused_before_a_run(values, tmp_path):
    source, dest = folder_of(tmp_path / "pictures", 8, ()), tmp_path / "data"
    prepare(f"folder:{source}", dest, "--format", "png")
    values["data"] |= {"shards": str(dest), "channels": 3, "image_size": 8, "slots": 2}
    with pytest.raises(
        UserError, match=r"data\.decode: gpu, but .*/data has images \.png, and a GPU decodes JPEGs only"
    ):
        preflight.check(config_of(values, **GPU_FIELDS))


def test_a_run_keeps_its_decoder(values, tmp_path):
    """What `auto` means is settled and written when the run begins; another decoder is another run."""
    file = write_yaml(tmp_path / "run.yaml", values)
    spec = resolve(load_config(file, []))
    assert spec.data.decode == "cpu"
    folder = RunFolder(open_storage(spec.run.uri))
    run_config.write_config(run_config.settle(load_config(file, []), folder), folder)
    folder.move_pointer("latest", Pointer("000000000012-0001", 12, 1))
    assert run_config.settle(load_config(file, ["data.decode=cpu"]), folder) == spec
    with pytest.raises(UserError, match=r"begun with another config: data\.decode was cpu, is gpu\. These cannot"):
        run_config.settle(load_config(file, ["data.decode=gpu", "cluster.gpus_per_worker=1"]), folder)


def test_a_benchmark_streams_with_it(values, tmp_path):
    shards = write(tmp_path / "data", [jpeg(number) for number in range(24)])
    values["data"] |= {"shards": shards, "channels": 3, "slots": 2}
    spec = resolve(config_of(values))
    assert bench_data.gpu_streamed(spec, open_data(shards), 1, CPU) > 0
    if not torch.cuda.is_available():
        assert bench_data._without_gpu(open_data(shards)) == "no GPU"


@GPU
def test_nvjpeg_decodes_the_images_of_libjpeg_but_for_rounding(tmp_path):
    shards = write(tmp_path / "data", [jpeg(number) for number in range(5)])
    (theirs, _, _), (mine, labels, _) = epoch(shards, "cpu"), epoch(shards, "gpu", device=torch.device("cuda", 0))
    assert mine.device.type == labels.device.type == "cuda"
    assert int((mine.cpu().int() - theirs.int()).abs().max()) <= 4
    assert isinstance(GpuDecoder("image", FIELDS["image"], open_data(shards).index, mine.device), GpuDecoder)
