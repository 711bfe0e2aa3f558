"""Selection of real images for scores, and their labels."""

import torch

from ganrun.config.schema import FieldConfig
from ganrun.data.cache import ShardCache
from ganrun.data.index import open_data
from ganrun.evaluation.real_images import RealImages
from ganrun.storage import open_storage
from tests.conftest import SIZES

IMAGE = {"image": FieldConfig(kind="image")}


def test_all_images_with_their_labels_in_the_order_of_the_index(data_folder):
    reals = RealImages(open_data(str(data_folder)), 1000, IMAGE)
    assert reals.samples == sum(SIZES)
    assert torch.equal(reals.labels(), torch.arange(sum(SIZES)) % 3)
    assert reals.images(0, 141).shape == (141, 1, 16, 16)


def test_fewer_are_evenly_spaced_and_the_same_however_they_are_read(data_folder):
    data = open_data(str(data_folder))
    every = RealImages(data, 1000, IMAGE)
    some = RealImages(data, 47, IMAGE)
    assert torch.equal(some.images(0, 47), every.images(0, 141)[::3])
    assert torch.equal(some.images(20, 5), every.images(60, 15)[::3])
    assert some.origin != every.origin


def test_labels_are_read_from_the_runs_own_field(data_folder):
    fields = IMAGE | {"kind_of_thing": FieldConfig(kind="label", extension="cls")}
    assert RealImages(open_data(str(data_folder)), 9, fields).labels().shape == (9,)


def test_what_is_kept_of_one_field_is_not_taken_for_another(data_folder):
    data, fields = open_data(str(data_folder)), {"lines": FieldConfig(kind="image")} | IMAGE
    assert RealImages(data, 9, fields, target="lines").origin != RealImages(data, 9, fields).origin


def test_shards_in_a_bucket_are_fetched_once_for_all_that_score_on_this_machine(data_folder, s3, tmp_path):
    for file in data_folder.iterdir():
        open_storage(f"{s3}/data").write(file.name, file.read_bytes())
    cache, fetched = ShardCache(tmp_path / "cache", 2**20), []
    for _ in range(2):
        data = open_data(f"{s3}/data")
        before = data.places[0].traffic.bytes_read
        images = RealImages(data, 1000, IMAGE, cache=cache).of(sum(SIZES)).images(0, sum(SIZES))
        fetched.append(data.places[0].traffic.bytes_read - before)
        assert torch.equal(images, RealImages(open_data(str(data_folder)), 1000, IMAGE).images(0, sum(SIZES)))
    assert fetched == [sum(shard.bytes for shard in data.index.shards), 0]
