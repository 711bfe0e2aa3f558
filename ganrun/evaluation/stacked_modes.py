"""Mode coverage on stacked images: the number of the 1,000 class triples that a generator covers.

Metz et al. 2017 (arXiv:1611.02163). A classifier of single grey images, trained on the data, labels each channel.
"""

import hashlib
import json
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ganrun.evaluation.classifier import STEPS, Classifier, stacked_labels, train_classifier
from ganrun.evaluation.feature_statistics import to_uint8
from ganrun.evaluation.generated_images import BATCH, ScoredImages
from ganrun.evaluation.modes import label_modes
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.reference_statistics import read_kept, write_kept
from ganrun.storage import Storage

CLASSES = 10
STACKS = 10_000
"""Real stacks that the classifier is trained on, independent of the number of samples of a score."""


def is_stacked(reals: RealImages) -> bool:
    """Return True if the data was made by `ganrun prepare stacked:`."""
    return reals.classes == tuple(f"{number:03d}" for number in range(CLASSES**3))


class StackedModes:
    """Counts modes with a classifier that all runs share.

    Args:
        reals: real stacks. They are classified too: their numbers are those of a perfect generator.
        cache: storage of the classifier.
    """

    def __init__(self, reals: RealImages, cache: Storage) -> None:
        self.reals, self.cache = reals, cache
        self._network: nn.Module | None = None
        self._real: dict[str, float] = {}

    def measure(
        self, generated: ScoredImages, samples: int, group: dist.ProcessGroup | None = None
    ) -> dict[str, float]:
        """Return `modes_covered` and `mode_kl` of generated images, and `real_modes_covered` and `real_mode_kl`.

        Collective over `group`; the same numbers on all ranks. Images that are not finite have no mode.
        """
        if self._network is None:
            self._network = self._classifier(group).to(generated.device)
            self._real = self._modes(self.reals.images, self.reals.samples, generated.device, group)
        found = self._modes(generated.images, samples, generated.device, group)
        return found | {f"real_{name}": value for name, value in self._real.items()}

    def _modes(
        self,
        images: Callable[[int, int], Tensor],
        samples: int,
        device: torch.device,
        group: dist.ProcessGroup | None,
    ) -> dict[str, float]:
        rank, world = (0, 1) if group is None else (group.rank(), group.size())
        counts = torch.zeros(CLASSES**3, dtype=torch.int64, device=device)
        for start in range(rank * BATCH, samples, world * BATCH):
            part = images(start, min(BATCH, samples - start)).to(device)
            if part.is_floating_point():
                part = to_uint8(part[part.isfinite().flatten(1).all(1)])
            assert self._network is not None
            counts += torch.bincount(stacked_labels(self._network, part, CLASSES), minlength=CLASSES**3)
        if group is not None:
            dist.all_reduce(counts, group=group)
        return label_modes(counts.cpu().numpy())

    def _classifier(self, group: dist.ProcessGroup | None) -> nn.Module:
        """Return the classifier that rank 0 has read or trained, on every rank."""
        network = Classifier(1, CLASSES).eval()
        if group is None or group.rank() == 0:
            network.load_state_dict(self._weights())
        if group is not None:
            for tensor in network.state_dict().values():
                dist.broadcast(tensor, group=group, group_src=0)
        return network

    def _weights(self) -> dict[str, Tensor]:
        facts = {**self.reals.of(STACKS).origin, "steps": STEPS, "what": "classifier"}
        name = f".statistics/{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()}.safetensors"
        if found := read_kept(self.cache, name):
            return found
        stacks = self.reals.of(STACKS)
        images, labels = stacks.images(0, stacks.samples), stacks.labels()
        singles = labels[:, None] // torch.tensor([CLASSES**2, CLASSES, 1]) % CLASSES
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # Equal weights on every worker: sums depend on the number of threads.
        try:
            weights = train_classifier(images.flatten(0, 1)[:, None], singles.flatten(), CLASSES, 0).state_dict()
        finally:
            torch.set_num_threads(threads)
        write_kept(self.cache, name, weights)
        return weights
