"""Small conditional networks for tests, `model.name: labelled` if the module is in `run.imports`: a shade per label."""

import torch
from torch import nn

from ganrun.config.registry import NETWORKS


class LabelledGenerator(nn.Module):
    def __init__(self, model, data):
        super().__init__()
        self.shape = (data.channels, data.image_size, data.image_size)
        self.shade = nn.Embedding(model.classes, 1)
        self.layer = nn.Linear(model.latent_size, data.channels * data.image_size**2)

    def forward(self, z, label=None):
        images = self.layer(z) / 10 + self.shade(label)
        return images.tanh().unflatten(1, self.shape)


class LabelledDiscriminator(nn.Module):
    def __init__(self, model, data):
        super().__init__()
        self.layer = nn.Linear(data.channels * data.image_size**2, model.width)
        self.label, self.last = nn.Embedding(model.classes, model.width), nn.Linear(model.width, 1)

    def features(self, images, label=None):
        return torch.tanh(self.layer(images.flatten(1)) + self.label(label))

    def forward(self, images, label=None):
        return self.last(self.features(images, label)).flatten()


def labelled(model, data):
    return {"generator": LabelledGenerator(model, data), "discriminator": LabelledDiscriminator(model, data)}


NETWORKS["labelled"] = labelled

SECTIONS = {
    "run": {"imports": ["tests.conditional"]},
    "model": {"name": "labelled", "classes": 3},
    "data": {"fields": {"image": "image", "label": "label"}},
}
"""Sections that override the `values` of a small run."""


def conditional(values):
    """Return the config values of a conditional run."""
    return {name: section | SECTIONS.get(name, {}) for name, section in values.items()}
