"""`data.mirror` and `data.crop`: alike on all pictures of a sample, the same on any number of workers."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ganrun import train
from ganrun.config.schema import DataConfig, EvaluateConfig, FieldConfig
from ganrun.data.decode import Decoder
from ganrun.data.index import DataSet, Index, open_data
from ganrun.data.order import Order
from ganrun.data.samples import Samples
from ganrun.data.scored import open_scored
from ganrun.data.stream import Stream
from ganrun.errors import UserError
from ganrun.evaluation.real_images import RealImages
from tests.conftest import SIZES, config_of, write_yaml
from tests.preparation.making import noise, prepare
from tests.ranks import latest_tensors, run_ranks

FIELDS = {"image": FieldConfig(kind="image"), "source": FieldConfig(kind="image", channels=1)}
KEYS = {"image": FieldConfig(kind="image"), "label": FieldConfig(kind="label")}
STEPS = 12


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return six pairs of 16x16 pixels, the source in grey, in two shards."""
    folder = tmp_path_factory.mktemp("pairs")
    for number in range(6):
        for name in ("images", "sources"):
            (folder / name).mkdir(exist_ok=True)
        noise(number, (16, 16)).save(folder / "images" / f"{number}.png")
        noise(number, (16, 16)).convert("L").save(folder / "sources" / f"{number}.png")
    assert prepare(f"pairs:{folder}/images,{folder}/sources", folder / "data", "--shard-samples", 3) == 0
    return folder / "data"


def pictures(data: DataSet, number: int) -> dict[str, np.ndarray]:
    """Return the decoded pictures of a sample, [C, H, W]."""
    sample = Samples(data)[number]
    return {name: Decoder(name, field, data.index).image(*sample).numpy() for name, field in FIELDS.items()}


def test_a_field_is_read_from_the_picture_of_its_name(pairs: Path) -> None:
    data = open_data(str(pairs))
    for number in range(6):
        key, members = Samples(data)[number][1:]
        found = pictures(data, number)
        assert key == f"{number:08d}"
        for name, member in (("image", "png"), ("source", "source.png")):
            stored = np.asarray(Image.open(io.BytesIO(members[member])))
            assert (found[name] == np.atleast_3d(stored).transpose(2, 0, 1)).all()
    with pytest.raises(UserError, match=r"has no lines \(.lines.png or .lines.jpg"):
        Decoder("lines", FieldConfig(kind="image"), data.index).image(*Samples(data)[0])


def test_all_pictures_of_a_sample_are_mirrored_alike(pairs: Path) -> None:
    data = open_data(str(pairs))
    doubled = data.trained_on(0.0, mirror=True)
    assert (doubled.samples, doubled.sizes) == (12, (6, 6))
    assert doubled.whole.samples == 6
    for number in range(6):
        plain, same, mirrored = pictures(data, number), pictures(doubled, 2 * number), pictures(doubled, 2 * number + 1)
        for name in FIELDS:
            assert (same[name] == plain[name]).all()
            assert (mirrored[name] == plain[name][:, :, ::-1]).all()
            assert (mirrored[name] != plain[name]).any()


@pytest.mark.parametrize("size", [8, 11, 16])
def test_the_centre_of_all_pictures_is_cut_out_alike(pairs: Path, size: int) -> None:
    whole, data = open_data(str(pairs)), open_data(str(pairs), crop=size)
    assert (data.index.image_size, data.index.pictures["source"].size) == (size, size)
    start = (16 - size) // 2
    for name, pixels in pictures(whole, 4).items():
        assert (pictures(data, 4)[name] == pixels[:, start : start + size, start : start + size]).all()
    assert data.index.fingerprint == whole.index.fingerprint
    assert Index.from_json(data.index.to_json(), "").stored_size is None


def test_a_crop_has_to_fit(pairs: Path) -> None:
    with pytest.raises(
        UserError, match=r"data.crop: 17, but the images of data.shards .* 16 pixels a side; set at most 16"
    ):
        open_data(str(pairs), crop=17)


def test_a_size_in_a_file_of_somebody_is_not_taken_for_a_crop(pairs: Path) -> None:
    fields = json.loads((pairs / "index.json").read_bytes())
    with pytest.raises(UserError, match="not a valid index"):
        Index.from_json(json.dumps({**fields, "stored_size": 999_999}).encode(), "it")
    for wrong in ({"size": 0, "channels": 1}, {"size": 16, "channels": 2}, {"size": "16", "channels": 1}, {}, 3):
        with pytest.raises(UserError, match="it: not a valid index"):
            Index.from_json(json.dumps({**fields, "pictures": {"source": wrong}}).encode(), "it")


# In training.


def batches(
    data: DataSet, config: DataConfig, owned: list[int], images: int, turns: int
) -> dict[int, list[torch.Tensor]]:
    """Return the batches of each owned slot in `turns` turns from a position on."""
    order = Order(data.sizes, 6, 0, 2)
    stream = Stream(data, config, order, owned, images)
    try:
        shown = [stream.next() for _ in range(turns)]
    finally:
        stream.close()
    return {slot: [turn[place]["image"] for turn in shown] for place, slot in enumerate(owned)}


def test_slots_show_the_same_on_any_number_of_workers_and_after_a_resume(data_folder: Path) -> None:
    data = open_data(str(data_folder), crop=12).trained_on(0.2, mirror=True)
    config = DataConfig(shards="x", image_size=12, crop=12, channels=1, batch_size=12, fields=KEYS, mirror=True)
    alone = batches(data, config, list(range(6)), 0, STEPS)
    for worker in range(3):
        owned = [worker, worker + 3]
        first, then = (batches(data, config, owned, images, STEPS // 2) for images in (0, STEPS // 2 * 12))
        for slot in owned:
            assert torch.equal(torch.stack(first[slot] + then[slot]), torch.stack(alone[slot]))


def test_neither_a_held_out_sample_nor_its_mirror_image_is_ever_shown(data_folder: Path) -> None:
    whole, share = open_data(str(data_folder)), 0.2
    image = Decoder("image", KEYS["image"], whole.index)
    seen = {image.image(*sample).numpy().tobytes() for sample in Samples(whole.trained_on(share, mirror=True))}
    scored = open_scored(whole, EvaluateConfig(held_out_share=share), 0)
    held_out = [image.image(*sample) for sample in Samples(scored)]
    assert len(held_out) == scored.samples > 0
    assert len(seen) == 2 * (sum(SIZES) - len(held_out))
    assert not seen & {each.numpy().tobytes() for picture in held_out for each in (picture, picture.flip(2))}


def test_statistics_of_cropped_images_are_kept_apart(data_folder: Path) -> None:
    whole, cropped = (RealImages(open_data(str(data_folder), crop=size), 5, KEYS) for size in (None, 12))
    assert cropped.images(0, 5).shape == (5, 1, 12, 12)
    assert whole.origin != cropped.origin
    other = open_scored(open_data(str(data_folder), crop=12), EvaluateConfig(shards=str(data_folder)), 0)
    assert other.index.image_size == 12


def test_a_run_crops_and_mirrors(
    values: dict[str, dict[str, object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values["data"] |= {"shards": "package:fluent-emoji", "image_size": 32, "crop": 32, "channels": 3, "mirror": True}
    values["data"] |= {"fields": {"image": "image", "lines": {"kind": "image", "channels": 1}, "text": "text"}}
    values["evaluate"] = {"held_out_share": 0.1}
    config = write_yaml(tmp_path / "run.yaml", values)
    assert train.main([str(config), "--validate"]) == 0
    assert "2,868 samples to train on with their mirror images, 160 held out" in (said := capsys.readouterr().out)
    assert "data.mirror is wrong for writing, and where words or labels name left and right" in said
    values["data"]["fields"] = {"image": "image", "lines": "image"}
    assert train.main([str(write_yaml(tmp_path / "run.yaml", values)), "--validate"]) == 2
    assert "data.fields.lines: an image of 3 channels and 32 pixels a side, but" in capsys.readouterr().err


def test_a_run_is_the_same_on_one_and_two_workers(values: dict[str, dict[str, object]], tmp_path: Path) -> None:
    values["data"] |= {"shards": "package:fluent-emoji", "image_size": 16, "crop": 16, "channels": 3, "mirror": True}
    configs = [config_of(values, run__name=f"on-{workers}") for workers in (1, 2)]
    for workers, config in enumerate(configs, 1):
        run_ranks(config, workers, tmp_path / f"meeting-{workers}")
    alone, two = map(latest_tensors, configs)
    assert alone.keys() == two.keys()
    for name, tensor in alone.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-6, atol=1e-9)
    config = config_of(values, run__name="plain", data__mirror=False)
    run_ranks(config, 1, tmp_path / "meeting")
    assert any(not torch.equal(tensor, alone[name]) for name, tensor in latest_tensors(config).items())
