"""Configs whose loss curves are recorded, as changes to the small run of conftest.py."""

from typing import Any

Sections = dict[str, dict[str, Any]]
BASE: Sections = {
    "data": {"slots": 2},
    "train": {"average_half_life_images": 100},
    "telemetry": {"sample_images": 4},
}
"""Sections of all families that override the small run: 20 rounds with a tick each, in float64."""
ADAM = {"learning_rate": 1e-3, "beta1": 0, "beta2": 0.9}
LABELS = {"image": "image", "label": "label"}

PAIRS = {"image": "image", "lines": {"kind": "image", "extension": "lines.png", "channels": 1}}
FRAMES = dict.fromkeys(("past_3", "past_2", "past_1", "image", "next_2", "next_3"), "image")
SENTENCES = {"image": "image", "text": "text", "embedding": "embedding"}
SOURCE = {"condition": "source", "source": {"field": "lines"}}

FAMILIES: dict[str, Sections] = {
    "dcgan": {},
    "dcgan_spectral_minimax": {"model": {"spectral_norm": True, "latent": "uniform"}, "objective": {"loss": "minimax"}},
    "cdcgan": {"model": {"classes": 3}, "data": {"fields": LABELS}},
    "cdcgan_least_squares_dragan": {
        "model": {"classes": 3},
        "data": {"fields": LABELS},
        "objective": {"loss": "least_squares", "penalties": {"dragan": 1.0}},
    },
    "wgan_gp_dcgan": {
        "objective": {"loss": "wasserstein", "penalties": {"wgan_gp": 10.0}, "discriminator_turns": 3},
        "optimizer": {"discriminator": ADAM, "generator": ADAM},
    },
    "wgan_lp_resnet": {
        "model": {"name": "resnet"},
        "objective": {"loss": "wasserstein", "penalties": {"wgan_lp": 10.0}, "discriminator_turns": 2},
        "optimizer": {"discriminator": ADAM, "generator": ADAM},
    },
    "sngan": {
        "model": {"name": "resnet", "spectral_norm": True},
        "objective": {"loss": "hinge", "discriminator_turns": 2},
        "optimizer": {"discriminator": ADAM | {"schedule": "linear"}, "generator": ADAM | {"schedule": "linear"}},
    },
    "r3gan": {
        "data": {"image_size": 8},
        "model": {"name": "r3gan", "width": 8},
        "objective": {"loss": "relativistic", "penalties": {"r1": 0.5, "r2": 0.5}},
        "optimizer": {"discriminator": ADAM, "generator": ADAM},
    },
    "r3gan_labels": {
        "data": {"image_size": 8, "fields": LABELS},
        "model": {"name": "r3gan", "width": 8, "classes": 3, "latent": "hypersphere"},
        "objective": {"loss": "relativistic", "penalties": {"r1": 0.5, "r2": 0.5}, "diffaugment": ["color", "cutout"]},
    },
    "stylegan2": {
        "data": {"image_size": 8},
        "model": {"name": "stylegan2", "width": 4, "blocks": 2},
        "objective": {
            "penalties": {"r1": 1.0},
            "penalty_every_rounds": 2,
            "style_mixing": 0.9,
            "path_length": 2.0,
            "path_length_every_rounds": 2,
        },
        "optimizer": {"discriminator": ADAM, "generator": ADAM},
    },
    "stylegan2_labels": {
        "data": {"image_size": 8, "fields": LABELS},
        "model": {"name": "stylegan2", "width": 4, "blocks": 1, "classes": 3, "latent": "hypersphere"},
        "objective": {"path_length": 1.0, "path_length_every_rounds": 2, "ada_target": 0.6, "ada_images": 96},
        "optimizer": {"discriminator": ADAM, "generator": ADAM},
    },
    "gaussians": {
        "data": {"image_size": 1, "channels": 2, "fields": {"image": "point"}},
        "model": {"name": "mlp", "width": 8, "latent_size": 2},
        "objective": {"loss": "relativistic", "penalties": {"r1": 0.01, "r2": 0.01}},
        "evaluate": {"every_images": 60, "samples": 50},
    },
    "dirac": {
        "data": {"image_size": 1, "channels": 1, "fields": {"image": "point"}},
        "model": {"name": "dirac", "latent_size": 1},
        "objective": {"loss": "minimax", "penalties": {"r1": 0.5}},
        "optimizer": {name: {"name": "sgd", "learning_rate": 0.1} for name in ("discriminator", "generator")},
        "evaluate": {"every_images": 60, "samples": 24, "held_out_share": 0.2, "metrics": ["duality_gap"]},
    },
    "linear_quadratic": {
        "data": {"image_size": 1, "channels": 1, "fields": {"image": "point"}},
        "model": {"name": "linear_quadratic", "latent_size": 1},
        "objective": {"loss": "wasserstein", "penalties": {"r2": 0.5}, "discriminator_turns": 2},
        "evaluate": {"every_images": 60, "samples": 50, "metrics": ["kl", "reverse_kl", "jensen_shannon"]},
    },
    "colour": {"data": {"channels": 3}, "model": {"minibatch_stddev": True}},
    "tricks": {
        "model": {"minibatch_stddev": True, "latent": "truncated"},
        "objective": {
            "penalties": {"r1": 0.1, "dragan": 0.1},
            "penalty_every_rounds": 4,
            "weight_clip": 0.1,
            "label_smoothing": 0.1,
            "label_flipping": 0.25,
            "instance_noise": 0.2,
            "instance_noise_images": 180,
            "diffaugment": ["color", "translation", "cutout"],
            "ada_target": 0.2,
            "ada_images": 96,
        },
        "optimizer": {
            "discriminator": {"clip_norm": 0.5, "warmup_images": 60, "schedule": "cosine"},
            "generator": {"clip_norm": 0.05, "schedule": "linear"},
        },
    },
    "pix2pix": {
        "data": {"image_size": 32, "channels": 3, "fields": PAIRS},
        "model": {"name": "pix2pix", "width": 2},
        "objective": SOURCE | {"reconstruction": {"l1": 100.0}},
    },
    "dcgan_source": {
        "data": {"image_size": 32, "channels": 3, "fields": PAIRS},
        "model": {"width": 2},
        "objective": SOURCE
        | {"loss": "hinge", "reconstruction": {"l2": 1.0, "feature_matching": 10.0}, "diffaugment": ["translation"]},
    },
    "r3gan_source": {
        "data": {"image_size": 32, "channels": 3, "fields": PAIRS},
        "model": {"name": "r3gan", "width": 8},
        "objective": SOURCE | {"loss": "relativistic", "penalties": {"r1": 0.5, "r2": 0.5}},
        "optimizer": {"discriminator": ADAM, "generator": ADAM},
    },
    "srgan": {
        "model": {"name": "srgan", "width": 4, "blocks": 1},
        "objective": {
            "condition": "low_resolution",
            "reconstruction": {"l2": 10.0},
            "reconstruct_first_images": 120,
        },
    },
    "esrgan": {
        "model": {"name": "esrgan", "width": 4, "blocks": 1},
        "objective": {
            "condition": "low_resolution",
            "low_resolution": {"factor": 2, "degradations": ["blur", "noise", "jpeg"]},
            "loss": "relativistic",
            "reconstruction": {"l1": 1.0, "feature_matching": 1.0},
        },
    },
    "dcgan_masked": {
        "data": {"channels": 3},
        "objective": {
            "condition": "masked",
            "masked": {"holes": "strokes"},
            "loss": "hinge",
            "penalties": {"r1": 1.0},
            "reconstruction": {"l1": 10.0},
            "diffaugment": ["translation"],
        },
    },
    "pix2pix_past_frames": {
        "data": {"image_size": 32, "fields": FRAMES},
        "model": {"name": "pix2pix", "width": 2},
        "objective": {
            "condition": "past_frames",
            "past_frames": {"frames": 3, "horizons": 3},
            "reconstruction": {"l1": 10.0, "gradient_difference": 10.0},
        },
    },
    "r3gan_past_frames": {
        "data": {"image_size": 32, "fields": FRAMES},
        "model": {"name": "r3gan", "width": 8},
        "objective": {
            "condition": "past_frames",
            "past_frames": {"frames": 2},
            "loss": "relativistic",
            "reconstruction": {"l2": 10.0},
            "diffaugment": ["translation", "color"],
        },
        "optimizer": {"discriminator": ADAM, "generator": ADAM},
    },
    "dcgan_text": {
        "data": {"channels": 3, "fields": SENTENCES},
        "objective": {
            "condition": "text",
            "text": {"size": 6, "projected": 4, "interpolation": True, "conditioning_augmentation": 0.5},
            "penalties": {"matching_aware": 0.01},
            "diffaugment": ["translation"],
        },
    },
    "r3gan_text": {
        "data": {"channels": 3, "fields": SENTENCES},
        "model": {"name": "r3gan", "width": 8},
        "objective": {
            "condition": "text",
            "text": {"size": 6, "projected": 4},
            "loss": "relativistic",
            "penalties": {"r1": 0.5, "r2": 0.5},
        },
        "optimizer": {"discriminator": ADAM, "generator": ADAM},
    },
    "gain": {
        "data": {"image_size": 1, "channels": 2, "fields": {"image": "point"}},
        "model": {"name": "gain", "width": 8},
        "objective": {"game": "gain", "condition": "masked", "gain": {"hint_share": 0.5}},
    },
    "feature_matching": {
        "model": {"latent": "hypersphere"},
        "objective": {"feature_matching": True, "ada_target": 0.1, "ada_images": 96, "instance_noise": 0.1},
        "optimizer": {
            "discriminator": {"learning_rate": 5e-3},
            "generator": {"warmup_images": 120, "schedule": "cosine"},
        },
    },
}


def values_of(family: str, small: Sections) -> Sections:
    """Return the config values of a family, with a tick each round."""
    values = {section: dict(keys) for section, keys in small.items()}
    for layer in (BASE, FAMILIES[family]):
        for section, keys in layer.items():
            values[section] = values.get(section, {}) | keys
    turns = values.get("objective", {}).get("discriminator_turns", 1)
    values["train"] |= {"tick_images": 12 * turns, "total_images": 240 * turns}
    return values
