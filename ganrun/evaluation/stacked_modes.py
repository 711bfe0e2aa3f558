"""Mode coverage on stacked images: the number of the 1,000 class triples that a generator covers.

Metz et al. 2017 (arXiv:1611.02163). A classifier of single grey images, trained on the data, labels each channel.
"""

import hashlib
import json

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ganrun.evaluation.classifier import STEPS, Classifier, stacked_labels, train_classifier
from ganrun.evaluation.feature_statistics import to_uint8
from ganrun.evaluation.generated_images import BATCH
from ganrun.evaluation.modes import label_modes
from ganrun.evaluation.ranks import place_in
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.reference_statistics import read_kept, write_kept
from ganrun.evaluation.score import Features, Score, ScoreBatch, ScoreSubject, Sums
from ganrun.storage import Storage

CLASSES = 10
STACKS = 10_000
"""Real stacks that the classifier is trained on, independent of the number of samples of a score."""


def is_stacked(reals: RealImages) -> bool:
    """Return True if the data was made by `ganrun prepare stacked:`."""
    return reals.classes == tuple(f"{number:03d}" for number in range(CLASSES**3))


class StackedModes(Score):
    """Counts modes with a classifier that all runs share.

    Real stacks are classified too: their numbers are those of a perfect generator.
    """

    def __init__(self) -> None:
        self._network: nn.Module | None = None
        self._real: dict[str, float] = {}

    def unavailable(self, subject: ScoreSubject) -> str | None:
        """Return the reason for which the score cannot be computed; None if it can."""
        if subject.reals is None or not is_stacked(subject.reals):
            return "the data are not stacked images; make them with ganrun prepare stacked:"
        return None

    def start(self, subject: ScoreSubject) -> Sums:
        """Return the counts of the modes at zero, [1000]; the first time also read or train the classifier."""
        if self._network is None:
            assert subject.reals is not None
            self._network = _classifier(subject.reals, subject).to(subject.generated.device)
            self._real = label_modes(self._count_real(subject.reals, subject).cpu().numpy())
        return {"counts": torch.zeros(CLASSES**3, dtype=torch.float64, device=subject.generated.device)}

    def update(self, sums: Sums, batch: ScoreBatch) -> None:
        """Count the modes of generated images. Images that are not finite have none."""
        sums["counts"] += self._count(to_uint8(batch.images[batch.images.isfinite().flatten(1).all(1)]))

    def result(self, sums: Sums, features: Features | None) -> dict[str, float]:
        """Return `modes_covered` and `mode_kl` of generated images, and `real_modes_covered` and `real_mode_kl`."""
        found = label_modes(sums["counts"].cpu().numpy().astype(np.int64))
        return found | {f"real_{name}": value for name, value in self._real.items()}

    def _count(self, images: Tensor) -> Tensor:
        """Return the number of images of each mode, int64 [1000]."""
        assert self._network is not None
        return torch.bincount(stacked_labels(self._network, images, CLASSES), minlength=CLASSES**3)

    def _count_real(self, reals: RealImages, subject: ScoreSubject) -> Tensor:
        """Return the number of real images of each mode, int64 [1000], on every rank. Collective."""
        group, device = subject.group, subject.generated.device
        rank, world = place_in(group)
        counts = torch.zeros(CLASSES**3, dtype=torch.int64, device=device)
        for start in range(rank * BATCH, reals.samples, world * BATCH):
            counts += self._count(reals.images(start, min(BATCH, reals.samples - start)).to(device))
        if group is not None:
            dist.all_reduce(counts, group=group)
        return counts


def _classifier(reals: RealImages, subject: ScoreSubject) -> nn.Module:
    """Return the classifier that rank 0 has read or trained, on every rank. Collective."""
    network = Classifier(1, CLASSES).eval()
    if subject.is_first:
        network.load_state_dict(_weights(reals, subject.cache))
    if subject.group is not None:
        for tensor in network.state_dict().values():
            dist.broadcast(tensor, group=subject.group, group_src=0)
    return network


def _weights(reals: RealImages, cache: Storage) -> dict[str, Tensor]:
    facts = {**reals.of(STACKS).origin, "steps": STEPS, "what": "classifier"}
    name = f".statistics/{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()}.safetensors"
    if found := read_kept(cache, name):
        return found
    stacks = reals.of(STACKS)
    images, labels = stacks.images(0, stacks.samples), stacks.labels()
    singles = labels[:, None] // torch.tensor([CLASSES**2, CLASSES, 1]) % CLASSES
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # Equal weights on every worker: sums depend on the number of threads.
    try:
        weights = train_classifier(images.flatten(0, 1)[:, None], singles.flatten(), CLASSES, 0).state_dict()
    finally:
        torch.set_num_threads(threads)
    write_kept(cache, name, weights)
    return weights
