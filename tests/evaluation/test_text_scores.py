"""Colours of pictures, and the dual encoder: against brute force."""

import torch
from torch.nn import functional as F

from ganrun.evaluation.matcher import AMONG, Matcher, Towers, to_file, trained_towers
from ganrun.evaluation.text_scores import COLOURS, main_colours

SHADES = {
    "red": [(255, 0, 0), (200, 30, 30), (230, 20, 60)],
    "orange": [(255, 140, 0), (250, 120, 40)],
    "yellow": [(255, 230, 0), (250, 210, 60)],
    "green": [(0, 200, 0), (60, 150, 60)],
    "blue": [(0, 0, 255), (0, 160, 240)],
    "purple": [(140, 60, 200), (180, 0, 220)],
    "brown": [(120, 70, 20), (150, 90, 60)],
    "black": [(0, 0, 0), (40, 40, 40)],
}


def picture(colour, share):
    """A white picture of which a share is of a colour."""
    pixels = torch.full((3, 10, 10), 255, dtype=torch.uint8)
    pixels.flatten(1)[:, : round(100 * share)] = torch.tensor(colour, dtype=torch.uint8)[:, None]
    return pixels


def test_the_colour_of_a_picture_is_that_of_most_coloured_pixels():
    for name, shades in SHADES.items():
        found = main_colours(torch.stack([picture(shade, 0.3) for shade in shades]))
        assert [COLOURS[number] for number in found.tolist()] == [name] * len(shades)
    white, grey = picture((255, 255, 255), 1), picture((150, 150, 150), 1)
    assert main_colours(torch.stack([white, grey])).tolist() == [-1, -1]
    mixed = picture((255, 0, 0), 0.5)
    mixed.flatten(1)[:, :20] = torch.tensor((0, 0, 255), dtype=torch.uint8)[:, None]
    assert COLOURS[main_colours(mixed[None]).item()] == "red"


@torch.no_grad()
def test_a_hit_is_the_nearest_of_a_hundred_sentences():
    torch.manual_seed(0)
    matcher = Matcher(Towers(5, 4), {}, "")
    features, texts = torch.randn(150, 5), matcher.towers.of_texts(torch.randn(150, 4))
    hits = matcher.hits(features, texts, torch.arange(150))
    images = F.normalize(matcher.towers.image(features))
    for number in range(150):
        candidates = [(number + step) % 150 for step in range(AMONG)]
        likeness = [float(images[number] @ texts[candidate]) for candidate in candidates]
        assert bool(hits[number]) == (likeness[0] == max(likeness))
    features[3] = float("nan")
    assert not matcher.hits(features, texts, torch.arange(150))[3]


def test_a_dual_encoder_learns_pairs_and_finds_others_again():
    torch.manual_seed(0)
    hidden, to_image, to_text = torch.randn(400, 6), torch.randn(6, 12), torch.randn(6, 9)
    features, told = hidden @ to_image, (hidden @ to_text)[:, None].repeat(1, 2, 1)
    told[::2, 1] = float("nan")  # One caption.
    towers = trained_towers(features[:300], told[:300], seed=0)
    texts = towers.of_texts(told[300:, 0])
    hits = Matcher(towers, {}, "").hits(features[300:], texts, torch.arange(100))
    assert hits.float().mean() > 0.5  # By chance 0.01.
    again = trained_towers(features[:300], told[:300], seed=0)
    assert to_file(again, {"a": 1}) == to_file(towers, {"a": 1})
    assert to_file(trained_towers(features[:300], told[:300], seed=1), {"a": 1}) != to_file(towers, {"a": 1})
