"""What the duality gap of a run costs, beside the Fréchet distance of as many images, in turn."""

import time
from collections.abc import Callable
from typing import Any

import torch

from ganrun.benchmarks.comparison import in_turn, result
from ganrun.benchmarks.rounds import changed, use_threads
from ganrun.config.run_spec import RunSpec
from ganrun.data.index import open_data
from ganrun.data.scored import open_scored
from ganrun.evaluation.duality_gap import DualityGap
from ganrun.evaluation.evaluator import Evaluator
from ganrun.evaluation.generated_images import GeneratedImages
from ganrun.evaluation.real_images import RealImages
from ganrun.evaluation.score import ScoreSubject
from ganrun.games.build import build_game
from ganrun.models.extractors import open_extractor
from ganrun.storage import open_storage

REPEATS, HELD_OUT = 3, 0.2


def measure(spec: RunSpec) -> dict[str, Any]:
    """Scores/s of both. Statistics of the real images are there, as in all scores of a run but the first."""
    use_threads(spec.cluster)
    spec = changed(spec, evaluate__held_out_share=spec.evaluate.held_out_share or HELD_OUT)
    samples, settings = spec.evaluate.samples, spec.evaluate
    game = build_game(spec, torch.device("cpu"))
    for network in game.networks.values():
        network.eval()
    data = open_scored(open_data(spec.data.shards, crop=spec.data.crop), settings, samples)
    reals = RealImages(data, samples, spec.data.fields, target=spec.objective.target)
    generated, cache = GeneratedImages(game, game.networks, spec.run.seed), open_storage(spec.run.storage)
    evaluator = Evaluator(open_extractor(settings.extractor, settings.extractor_weights), reals, samples, {}, cache)
    subject = ScoreSubject(generated, samples, cache, reals)
    score = DualityGap(settings.duality_gap)
    sides: dict[str, Callable[[], float]] = {
        "duality gap": lambda: _rate(lambda: score.result(score.start(subject), None)),
        "Fréchet distance": lambda: _rate(lambda: evaluator.score(generated)),
    }
    in_turn(sides, 1)
    rates = in_turn(sides, REPEATS)
    ours, theirs = rates.values()
    return result(
        "gap", "Fréchet distance", "scores/s", ours, theirs, None, samples=samples, steps=settings.duality_gap.steps
    )


def describe(found: dict[str, Any]) -> str:
    """Seconds of both."""
    return (
        f"duality gap of {found['steps']} steps: {1 / found['ours']:.2f} s; Fréchet distance of {found['samples']:,} "
        f"images: {1 / found['theirs']:.2f} s\n"
        f"ratio {found['ratio']:.2f} (median of {found['repeats']} repeats in turn; above 1: the gap is faster)"
    )


def _rate(step: Callable[[], object]) -> float:
    begun = time.perf_counter()
    step()
    return 1 / (time.perf_counter() - begun)
