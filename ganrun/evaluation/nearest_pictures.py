"""A picture of generated images beside the training images that are nearest to them in feature space."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ganrun.evaluation.generated_images import BATCH, ScoredImages
from ganrun.evaluation.memorisation import MOST, training_features
from ganrun.evaluation.pictures import to_png
from ganrun.evaluation.precision_recall import nearest
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.score import Features
from ganrun.models.extractors import Extractor
from ganrun.storage import Storage

ROWS, NEIGHBOURS = 8, 3


def nearest_png(
    generated: ScoredImages,
    reals: RealImages,
    features: Features,
    extractor: Extractor,
    cache: Storage,
    facts: Mapping[str, str],
) -> bytes:
    """Render the generated images that are nearest to a training image, each followed by the three nearest ones.

    With held-out images these follow in the right half, the nearest ones too: no copies, so what is as near as they are
    is none. Without, all images of the data are taken for training images.

    Args:
        generated: the images.
        reals: the real images that scores compare with.
        features: those of both.
        extractor: what they are features of.
        cache: storage of the features of training images, shared by all runs.
        facts: provenance, stored as text chunks of the PNG.
    """
    training = reals.trained_on(MOST)
    sides: list[tuple[Callable[[int, int], Tensor], Tensor]] = [(generated.images, features.fake)]
    if training:
        sides.append((lambda start, count: reals.images(start, count).float() / 127.5 - 1, features.real))
    training = training or reals.of(MOST)
    known = training_features(training, extractor, cache)
    assert known is not None
    rows = [_side(images, found, training, known.to(found.device)) for images, found in sides]
    shown = torch.cat(rows, 1)
    return to_png(shown.flatten(0, 1), shown.shape[1], facts)


def _side(images: Callable[[int, int], Tensor], found: Tensor, training: RealImages, known: Tensor) -> Tensor:
    """Return rows of an image and its neighbours, nearest first, [ROWS, 1 + NEIGHBOURS, C, H, W] in [-1, 1].

    Args:
        images, found: images, and the features of all of them.
        training, known: training images and their features.
    """
    samples = len(found)
    neighbours, distances = nearest(known, found, min(NEIGHBOURS, len(known)))
    order = distances[:, 0].nan_to_num(torch.inf).argsort()[:ROWS].tolist()
    rows = []
    for number in order:
        start = number // BATCH * BATCH  # Images are made in whole chunks.
        near = [training.images(row, 1) for row in neighbours[number].tolist()]
        image = images(start, min(BATCH, samples - start))[number - start].float().cpu()
        rows.append(torch.stack([image, *(each[0].float() / 127.5 - 1 for each in near)]))
    return torch.stack(rows)
