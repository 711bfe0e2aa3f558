"""The same run on any number of workers, stopped and resumed or not, is the same run."""

import pytest
import torch

from ganrun.preparation.points import make_points
from tests.clips import of_clips, write_clips
from tests.conditional import conditional
from tests.conftest import config_of
from tests.families import values_of
from tests.paired import paired, write_pairs
from tests.ranks import as_ranks, latest_tensors, run_ranks, work_rank
from tests.sentences import write_captioned

TOTAL, STOP = 240, 132
"""20 rounds of 12 images; the stop falls into the middle of an epoch (of 138 images) and of a tick."""


def changing(begin, to):
    """A number with a schedule that ends before the run does."""
    return {"schedule": "cosine", "from": begin, "to": to, "until_images": 200}


TRICKS = {
    # The stop after 11 rounds is in the middle of 3 rounds, and of 4 turns between changes of the strength.
    "augmented": {
        "objective__penalties": {"r1": 5.0, "dragan": 1.0},
        "objective__penalty_every_rounds": 3,
        "objective__feature_matching": True,
        "objective__ada_target": 0.05,
        "objective__ada_images": 480,
        "objective__ada_transforms": ["blit", "geometric", "color", "filter", "noise", "cutout"],
        "objective__diffaugment": ["color", "translation", "cutout"],
        "objective__instance_noise": 0.2,
        "objective__instance_noise_images": 200,
        "objective__label_smoothing": 0.1,
        "objective__label_flipping": 0.1,
        "model__latent": "truncated",
        "optimizer__discriminator": {"learning_rate": 2e-3, "clip_norm": 0.5},
    },
    "relativistic": {
        "objective__loss": "relativistic",
        "objective__penalties": {"r1": changing(1.0, 0.1), "r2": 1.0, "wgan_gp": 1.0, "wgan_lp": 1.0},
        "objective__penalty_every_rounds": 4,
        "objective__ada_probability": changing(0.0, 0.5),
        "train__average_half_life_images": changing(0, 100),
        "optimizer__generator": {"learning_rate": changing(1e-3, 1e-4), "beta2": changing(0.9, 0.99)},
        "objective__weight_clip": 0.1,
        "objective__discriminator_turns": 2,
        "model__latent": "hypersphere",
    },
}
"""Every trick with a state, a schedule or randomness of its own; the second with labels."""

TRANSLATIONS = {
    "pix2pix": {
        "objective": {"reconstruction": {"l1": 10.0, "l2": 1.0, "feature_matching": 1.0}},
        "data": {"jitter": 0.117, "mirror": True},
    },
    "dcgan": {"model": {"name": "dcgan"}, "objective": {"diffaugment": ["translation", "color"]}},
    "r3gan": {
        "model": {"name": "r3gan", "width": 8},
        "objective": {"loss": "relativistic", "penalties": {"r1": 0.1}, "ada_target": 0.05, "ada_images": 480},
    },
    # The stop is in the first stage, without discriminator.
    "srgan": {
        "model": {"name": "srgan", "width": 4, "blocks": 1},
        "objective": {
            "condition": "low_resolution",
            "source": {},
            "low_resolution": {"degradations": ["blur", "noise", "jpeg"]},
            "reconstruct_first_images": STOP + 36,
        },
    },
    "masked": {"objective": {"condition": "masked", "source": {}, "diffaugment": ["translation"]}},
}
"""Runs that translate pictures, with each family: dropout, reconstruction terms, pictures that are augmented; and those
whose pictures are made of the images themselves."""


@pytest.fixture
def undisturbed(values, tmp_path):
    config = config_of(values, run__name="undisturbed", objective__discriminator_turns=2, train__total_images=2 * TOTAL)
    run_ranks(config, 1, tmp_path / "meeting")
    return latest_tensors(config)


def assert_close(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_do_not_enter(values, tmp_path, undisturbed, workers):
    config = config_of(
        values, objective__discriminator_turns=2, train__total_images=2 * TOTAL, cluster__workers=workers
    )
    run_ranks(config, workers, tmp_path / "meeting2")
    assert_close(latest_tensors(config), undisturbed)


def test_workers_may_change_at_a_resume(values, tmp_path, undisturbed):
    config = config_of(values, objective__discriminator_turns=2, train__total_images=2 * TOTAL)
    run_ranks(config, 2, tmp_path / "first", stop_at=STOP)
    run_ranks(config, 5, tmp_path / "second", stop_at=2 * STOP)
    run_ranks(config, 1, tmp_path / "third")
    assert_close(latest_tensors(config), undisturbed)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_stop_and_resume_equals_never_stopped_bit_for_bit(values, tmp_path, workers, precision):
    whole = config_of(values, run__name="whole", train__precision=precision)
    parts = config_of(values, run__name="parts", train__precision=precision)
    run_ranks(whole, workers, tmp_path / "whole")
    run_ranks(parts, workers, tmp_path / "first", stop_at=STOP)
    stopped = latest_tensors(parts)
    run_ranks(parts, workers, tmp_path / "second")
    resumed, expected = latest_tensors(parts), latest_tensors(whole)
    assert resumed.keys() == expected.keys()
    for name, tensor in resumed.items():
        assert torch.equal(tensor, expected[name]), name
    assert not torch.equal(stopped["generator/layers.0.weight"], resumed["generator/layers.0.weight"])


def work_through(rank, workers, runs):
    for config, rendezvous, stop in runs:
        work_rank(rank, config, workers, rendezvous, stop)


def check_equality(config_for, kinds, tmp_path):
    """Check that each kind of run is the same on 1, 2 and 3 workers, and on 1 and 2 stopped or not."""
    for workers in (1, 2, 3):  # All runs of so many workers in the same processes: to start some takes longest.
        runs = []
        for kind in kinds:
            whole, parts = (config_for(kind, f"{what}-{workers}") for what in ("whole", "parts"))
            runs += [(whole, None), (parts, STOP), (parts, None)] if workers < 3 else [(whole, None)]
        runs = [(config, str(tmp_path / f"{workers}-{number}"), stop) for number, (config, stop) in enumerate(runs)]
        if workers == 1:
            work_through(0, 1, runs)
        else:
            as_ranks(work_through, (workers, runs), workers)
    for kind in kinds:
        found = {workers: latest_tensors(config_for(kind, f"whole-{workers}")) for workers in (1, 2, 3)}
        assert_close(found[2], found[1])
        assert_close(found[3], found[1])
        for workers in (1, 2):
            resumed = latest_tensors(config_for(kind, f"parts-{workers}"))
            assert resumed.keys() == found[workers].keys()
            assert [name for name, each in resumed.items() if not torch.equal(each, found[workers][name])] == []


def test_tricks_too_are_the_same_on_any_number_of_workers_stopped_or_not(values, tmp_path):
    def config_for(tricks, name):
        return config_of(
            conditional(values) if tricks == "relativistic" else values, run__name=f"{tricks}-{name}", **TRICKS[tricks]
        )

    check_equality(config_for, TRICKS, tmp_path)
    assert 0 < latest_tensors(config_for("augmented", "whole-1"))["augmentation/strength"].item() < 1


@pytest.mark.parametrize(
    "kinds",
    [
        ("pix2pix", "srgan", "past_frames", "gain", "dcgan_text"),
        pytest.param(("dcgan", "r3gan", "masked", "r3gan_text"), marks=pytest.mark.drill),  # For a minute each.
    ],
    ids="-".join,
)
def test_a_task_is_the_same_on_any_number_of_workers_stopped_or_not(values, tmp_path, kinds):
    folder, clips = write_pairs(tmp_path / "pairs"), write_clips(tmp_path / "clips")
    make_points("gaussians:8", str(tmp_path / "points"), 141, 0)
    write_captioned(tmp_path / "captions")

    def config_for(kind, name):
        if kind == "gain" or kind.endswith("_text"):
            changed = values_of(kind, values)
            place = tmp_path / ("points" if kind == "gain" else "captions")
            changed["data"] |= {"shards": str(place), "slots": values["data"]["slots"]}
            changed["train"]["total_images"] = TOTAL
        else:
            changed = paired(values, folder, **TRANSLATIONS[kind]) if kind in TRANSLATIONS else of_clips(values, clips)
        return config_of(changed, run__name=f"{kind}-{name}")

    check_equality(config_for, kinds, tmp_path)
