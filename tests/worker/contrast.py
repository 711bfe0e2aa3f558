"""A score of the user's own, as a module of `run.imports`."""

import torch

from ganrun.extend import SCORES, Score


class Contrast(Score):
    """Standard deviation of all pixels."""

    def start(self, subject):
        return {"moments": torch.zeros(3, dtype=torch.float64)}

    def update(self, sums, batch):
        pixels = batch.images.double()
        sums["moments"] += torch.stack([torch.tensor(float(pixels.numel())), pixels.sum(), pixels.square().sum()])

    def result(self, sums, features):
        count, total, square = sums["moments"].tolist()
        return {"contrast": (square / count - (total / count) ** 2) ** 0.5}


SCORES["contrast"] = Contrast
