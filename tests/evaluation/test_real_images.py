"""Which real images scores compare with, and their labels."""

import torch

from ganrun.config.schema import FieldConfig
from ganrun.data.index import open_data
from ganrun.evaluation.real_images import RealImages
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
