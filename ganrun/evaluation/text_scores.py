"""Scores of runs that draw sentences: whether a picture shows what its sentence says.

Shapes: B pictures of a chunk, M sentences.
"""

import functools
import math

import torch
from torch import Tensor

from ganrun.config.schema import EvaluateConfig
from ganrun.data.captions import captions_of
from ganrun.errors import UserError
from ganrun.evaluation.feature_statistics import to_uint8
from ganrun.evaluation.generated_images import BATCH, GeneratedImages
from ganrun.evaluation.matcher import AMONG, Matcher, open_matcher, seen_by_matcher
from ganrun.evaluation.paired_samples import PairedSamples
from ganrun.evaluation.ranks import place_in
from ganrun.evaluation.score import Features, Score, ScoreSubject, Sums
from ganrun.games.text import Text, scaled
from ganrun.models.text_encoder import open_text_encoder
from ganrun.telemetry.baselines import AT

SHOWN = "_shown"
"""End of the names of values of captions that were trained on."""


class Matching(Score):
    """Share of pictures whose sentence a dual encoder picks among 100: R-precision (Xu et al. 2018, arXiv:1711.10485).

    Of held-out captions, and of as many that were trained on (matching_shown). Beside them stand the same share for
    real pictures, and for generated ones that are taken for those of another caption.

    Args:
        evaluate: section `evaluate`, which names the dual encoder.
    """

    of_networks = on_request = starts_alone = True

    def __init__(self, evaluate: EvaluateConfig) -> None:
        self.where = evaluate.matcher

    @functools.cached_property
    def matcher(self) -> Matcher:
        """The dual encoder.

        Raises:
            UserError: it is not there.
        """
        assert self.where is not None
        return open_matcher(self.where, "evaluate.matcher")

    def unavailable(self, subject: ScoreSubject) -> str | None:
        """Return the reason for which the score cannot be computed; None if it can."""
        if (reason := _no_sentences(subject)) or self.where is None:
            return reason or "evaluate.matcher names no dual encoder; train one with ganrun matcher, and name its file"
        try:
            facts = self.matcher.facts
        except UserError as error:
            return str(error)
        assert subject.extractor is not None
        assert subject.reals is not None
        for name, wanted in subject.extractor.provenance.items():
            if name in facts and facts[name] != wanted:
                return f"evaluate.matcher: made for {name} {str(facts[name])[:20]}, not {wanted[:20]}; train another"
        embedding = subject.reals.data.index.embedding
        if embedding is None or facts["encoder_sha256"] != embedding.sha256:
            return "evaluate.matcher: made for embeddings of another encoder than those of the data; train another"
        return None

    def start(self, subject: ScoreSubject) -> Sums:
        """Return, for each set of captions, the pictures and the hits of generated, shuffled and real ones."""
        generated = subject.generated
        assert isinstance(generated, GeneratedImages)
        assert generated.pairs is not None
        self.matcher.towers.to(generated.device)
        sums = {"": self._counts(subject, generated, generated.pairs)}
        if (training := generated.pairs.training) is not None:
            sums[SHOWN] = self._counts(subject, generated, training)
        return sums

    def _counts(self, subject: ScoreSubject, generated: GeneratedImages, pairs: PairedSamples) -> Tensor:
        """Return the counts of this rank's pictures, float64 [4]."""
        of_pairs = GeneratedImages(generated.game, generated.networks, generated.seed, None, pairs)
        samples = min(subject.samples, pairs.samples)
        starts, towers, extractor = range(0, samples, BATCH), self.matcher.towers, subject.extractor
        assert extractor is not None
        told = [of_pairs.given(start, min(BATCH, samples - start))["text"] for start in starts]
        texts = towers.of_texts(torch.cat(told).float())
        rank, ranks = place_in(subject.group)
        counts = torch.zeros(4, dtype=torch.float64, device=generated.device)
        for start in starts[rank::ranks]:
            count = min(BATCH, samples - start)
            own = torch.arange(start, start + count, device=generated.device)
            real, fake = of_pairs.truth(start, count), of_pairs.images(start, count)
            assert real is not None
            seen, of_real = (seen_by_matcher(images, extractor) for images in (fake, real))
            hits = (
                torch.ones_like(own),
                self.matcher.hits(seen, texts, own) & fake.flatten(1).isfinite().all(1),
                self.matcher.hits(seen, texts, (own + max(samples // 2, 1)) % samples),
                self.matcher.hits(of_real, texts, own),
            )
            counts += torch.stack(hits).sum(1)
        return counts

    def result(self, sums: Sums, features: Features | None) -> dict[str, float]:
        """Return the shares, with their standard errors."""
        found: dict[str, float] = {}
        for end, counts in sums.items():
            pictures, *hits = counts.tolist()
            share, shuffled, real = (count / pictures for count in hits)
            found |= {f"matching{end}": share, f"matching{end}_deviation": _deviation(share, pictures)}
            found |= {f"matching{end}{AT}shuffled": shuffled, f"matching{end}{AT}real": real}
        return found

    def about(self, subject: ScoreSubject) -> str:
        """Return what it was measured with."""
        facts, pairs = self.matcher.facts, subject.generated
        assert isinstance(pairs, GeneratedImages)
        assert pairs.pairs is not None
        among = min(AMONG, subject.samples, pairs.pairs.samples)
        return (
            f"1 of {among} sentences; dual encoder sha256:{self.matcher.sha256[:12]}, trained on {facts['pairs']:,} "
            f"pairs (held out: {facts['held_out']}), accuracy on held-out real pictures {facts['accuracy']:.3g}"
        )


COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "brown", "black")
NOUNS = (
    *("heart", "circle", "square", "book", "apple", "flag", "shirt", "car", "flower", "bird", "fish", "hat", "ball"),
    *("cup", "box", "balloon", "bag", "chair", "house", "dog", "cat", "diamond", "star", "pen", "umbrella"),
)
HUES = ((15, "red"), (42, "orange"), (70, "yellow"), (165, "green"), (262, "blue"), (335, "purple"), (360, "red"))
"""Hues in degrees below which a colour is called so."""
DARK, PALE, BROWN = 0.25, 0.2, 0.65
"""Value below which a pixel is black, saturation below which it has no colour, value below which orange is brown."""


def main_colours(images: Tensor) -> Tensor:
    """Return the number in COLOURS that most coloured pixels of each picture have, int64 [B]; -1 if none has one.

    Args:
        images: uint8 [B, 3, H, W].
    """
    red, green, blue = (images.float() / 255).unbind(1)
    value, least = images.float().amax(1) / 255, images.float().amin(1) / 255
    span = value - least
    safe = span.clamp(min=1e-6)
    hue = torch.where(
        value == red,
        ((green - blue) / safe) % 6,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    names = torch.bucketize(hue * 60, torch.tensor([float(end) for end, _ in HUES[:-1]], device=hue.device), right=True)
    number = torch.tensor([COLOURS.index(name) for _, name in HUES], device=hue.device)[names]
    number = torch.where((number == COLOURS.index("orange")) & (value < BROWN), COLOURS.index("brown"), number)
    number = torch.where(value < DARK, COLOURS.index("black"), number)
    coloured = (value < DARK) | (span >= PALE * value)
    counts = torch.stack([((number == place) & coloured).flatten(1).sum(1) for place in range(len(COLOURS))], dim=1)
    most, which = counts.max(1)
    return torch.where(most > 0, which, -1)


class ColourWords(Score):
    """Share of 200 sentences, 8 colours by 25 things, whose picture has the named colour more than any other.

    Beside it the same pictures taken for those of the next colour, and real pictures whose caption names one colour.
    """

    of_networks = on_request = starts_alone = True

    def unavailable(self, subject: ScoreSubject) -> str | None:
        """Return the reason for which the score cannot be computed; None if it can."""
        if reason := _no_sentences(subject):
            return reason
        assert subject.reals is not None
        embedding = subject.reals.data.index.embedding
        assert embedding is not None
        if subject.reals.data.index.channels != 3:
            return "the pictures are grey; leave it out"
        try:
            encoder = open_text_encoder(embedding.encoder, "colour_words")
        except UserError as error:
            return str(error)
        return None if encoder.sha256 == embedding.sha256 else "the encoder here is not that of the data's embeddings"

    def start(self, subject: ScoreSubject) -> Sums:
        """Return the pictures and those with the right and with the next colour, and real pictures and right ones."""
        generated, reals = subject.generated, subject.reals
        assert isinstance(generated, GeneratedImages)
        assert generated.pairs is not None
        assert reals is not None
        assert reals.data.index.embedding is not None
        encoder = open_text_encoder(reals.data.index.embedding.encoder, "colour_words")
        sentences = [f"{colour} {noun}" for colour in COLOURS for noun in NOUNS]
        told = scaled(torch.from_numpy(encoder.encode(sentences)).to(generated.device, generated.dtype))
        rank, ranks = place_in(subject.group)
        counts = torch.zeros(3, dtype=torch.float64, device=generated.device)
        for start in range(rank * BATCH, len(sentences), ranks * BATCH):
            given = {"text": told[start : start + BATCH]}
            noise = generated.noise(start, len(given["text"])).under("colour_words")
            images = generated.answered(start, given, len(given["text"]), noise)
            found = main_colours(to_uint8(images))
            named = torch.arange(start, start + len(images), device=found.device) // len(NOUNS)
            rows = torch.ones_like(found), found == named, found == (named + 1) % len(COLOURS)
            counts += torch.stack(rows).sum(1)
        real = _real_colours(generated.pairs) if rank == 0 else torch.zeros(2, dtype=torch.float64)
        return {"made": counts, "real": real.to(generated.device)}

    def result(self, sums: Sums, features: Features | None) -> dict[str, float]:
        """Return the shares, with the standard error."""
        pictures, right, following = sums["made"].tolist()
        share = right / pictures
        found = {"colour_words": share, "colour_words_deviation": _deviation(share, pictures)}
        found[f"colour_words{AT}shuffled"] = following / pictures
        named, as_named = sums["real"].tolist()
        return found | ({f"colour_words{AT}real": as_named / named} if named else {})


def _real_colours(pairs: PairedSamples) -> Tensor:
    """Return the number of real pictures whose caption names one colour, and of those that have it, float64 [2]."""
    counts = torch.zeros(2, dtype=torch.float64)
    for part in (pairs, *([pairs.training] if pairs.training else ())):
        for start in range(0, part.samples, BATCH):
            batch = part.raw(range(start, min(start + BATCH, part.samples)))
            images = batch[part.target]
            assert isinstance(images, Tensor)
            for text, found in zip(batch[Text.caption_field], main_colours(images).tolist(), strict=True):
                words = set(" ".join(captions_of(str(text))).lower().split())
                named = [number for number, colour in enumerate(COLOURS) if colour in words]
                if len(named) == 1:
                    counts += torch.tensor([1.0, float(found == named[0])])
    return counts


def _deviation(share: float, pictures: float) -> float:
    """Return the standard error of a share."""
    return math.sqrt(share * (1 - share) / pictures)


def _no_sentences(subject: ScoreSubject) -> str | None:
    """Return the reason for which a run has no sentences; None if it has."""
    generated = subject.generated
    if not isinstance(generated, GeneratedImages) or generated.game.condition.text is None or generated.pairs is None:
        return "the pictures are of no sentences; it needs objective.condition: text"
    if subject.reals is None or subject.extractor is None:
        return "there are no real pictures"
    if subject.reals.data.index.embedding is None:
        return "the captions of the data are not embedded"
    return None
