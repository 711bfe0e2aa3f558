"""A picture of generated images beside the training images that are nearest to them in feature space."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ganrun.evaluation.feature_statistics import Keep, extract_generated
from ganrun.evaluation.generated_images import BATCH, ScoredImages
from ganrun.evaluation.memorisation import MOST, training_features
from ganrun.evaluation.pictures import to_png
from ganrun.evaluation.precision_recall import nearest
from ganrun.evaluation.real_images import RealImages
from ganrun.models.extractors import Extractor
from ganrun.storage import Storage

ROWS, NEIGHBOURS = 8, 3


def nearest_png(
    generated: ScoredImages,
    reals: RealImages,
    samples: int,
    extractor: Extractor,
    cache: Storage,
    facts: Mapping[str, str],
) -> bytes:
    """Render the generated images that are nearest to a training image, each followed by the three nearest ones.

    With held-out images these follow in the right half, the nearest ones too: no copies, so what is as near as they are
    is none. Without, all images of the data are taken for training images.

    Args:
        generated, samples: the images, and how many of them are looked at.
        reals: the real images that scores compare with.
        extractor: feature extractor, on the device of `generated`.
        cache: storage of the features of training images, shared by all runs.
        facts: provenance, stored as text chunks of the PNG.
    """
    training = reals.trained_on(MOST)
    sides: list[Callable[[int, int], Tensor]] = [generated.images]
    if training:
        sides.append(lambda start, count: reals.images(start, count).float() / 127.5 - 1)
    training = training or reals.of(MOST)
    features = training_features(training, extractor, cache)
    assert features is not None
    rows = [
        _side(images, training, features.to(extractor.device), count, extractor)
        for images, count in zip(sides, (samples, reals.samples), strict=False)
    ]
    shown = torch.cat(rows, 1)
    return to_png(shown.flatten(0, 1), shown.shape[1], facts)


def _side(
    images: Callable[[int, int], Tensor], training: RealImages, features: Tensor, samples: int, extractor: Extractor
) -> Tensor:
    """Return rows of an image and its neighbours, nearest first, [ROWS, 1 + NEIGHBOURS, C, H, W] in [-1, 1]."""
    found = extract_generated(images, samples, BATCH, extractor, keep=Keep(features=True)).features
    assert found is not None
    neighbours, distances = nearest(features, found.to(features.device), min(NEIGHBOURS, len(features)))
    order = distances[:, 0].nan_to_num(torch.inf).argsort()[:ROWS].tolist()
    rows = []
    for number in order:
        start = number // BATCH * BATCH  # Images are made in whole chunks.
        near = [training.images(row, 1) for row in neighbours[number].tolist()]
        image = images(start, min(BATCH, samples - start))[number - start].float().cpu()
        rows.append(torch.stack([image, *(each[0].float() / 127.5 - 1 for each in near)]))
    return torch.stack(rows)
