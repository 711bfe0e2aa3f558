"""What scores cost a search, and whether fewer samples rank its trials alike: CPU seconds of rounds and of scores of
`tune.samples`, beside scores of `evaluate.samples`, of the same trials without exploits.

CPU seconds and not seconds: a machine may be shared.
"""

import math
import statistics
import time
from collections.abc import Callable
from itertools import combinations
from typing import Any

import torch

from ganrun.benchmarks.comparison import result
from ganrun.benchmarks.rounds import use_threads
from ganrun.config.run_spec import RunSpec
from ganrun.data.cache import open_cache
from ganrun.data.index import DataSet, open_data
from ganrun.data.order import Order
from ganrun.data.scored import open_scored
from ganrun.data.stream import Stream
from ganrun.errors import UserError
from ganrun.evaluation.evaluator import Evaluator
from ganrun.evaluation.generated_images import GeneratedImages
from ganrun.evaluation.real_images import RealImages
from ganrun.models.extractors import open_extractor
from ganrun.slots import Slots
from ganrun.storage import open_storage
from ganrun.training.new_state import new_state
from ganrun.training.state import TrainingState
from ganrun.tuning.population import Population
from ganrun.tuning.trial_config import trial_config

INTERVALS = 2
"""Intervals of `tune.perturb_every_images` that each trial is trained for."""
FEW, ALL = "tune.samples", "evaluate.samples"


def measure(spec: RunSpec) -> dict[str, Any]:
    """Train the trials for `INTERVALS` and score each of them by both numbers of samples after each interval.

    Raises:
        UserError: the config is of no search, or its scores are all of the same number of samples.
    """
    if spec.tune is None or spec.tune.samples is None:
        raise UserError("bench search: needs a section tune with samples, such as configs/pbt_quickstart.yaml")
    use_threads(spec.cluster)
    data, population = open_data(spec.data.shards, crop=spec.data.crop), Population(spec)
    evaluators = {FEW: _evaluator(spec, data, spec.tune.samples), ALL: _evaluator(spec, data, spec.evaluate.samples)}
    rounds: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in evaluators}
    values: dict[str, dict[int, list[float]]] = {name: {at: [] for at in range(INTERVALS)} for name in evaluators}
    for name in population.trials:
        trial = _Trial(trial_config(spec, name, population.values[name]), data)
        for interval in range(INTERVALS):
            rounds.append(_cpu_seconds(lambda: trial.train(spec.tune.perturb_every_images))[0])  # noqa: B023
            for kind, evaluator in evaluators.items():
                spent, value = _cpu_seconds(lambda: evaluator.score(trial.generated).value)  # noqa: B023
                seconds[kind].append(spent)
                values[kind][interval].append(value)
        trial.stream.close()
    equal, pairs = _equal_pairs(values[FEW], values[ALL])
    of_round, few, whole = map(statistics.median, (rounds, seconds[FEW], seconds[ALL]))
    return result(
        "search",
        f"scores of {ALL}",
        "scores a CPU second",
        [1 / each for each in seconds[FEW]],
        [1 / each for each in seconds[ALL]],
        None,
        round_seconds=of_round,
        score_share=few / (few + of_round),
        score_share_before=whole / (whole + of_round),
        equal_pairs=equal,
        pairs=pairs,
        values=values,
    )


def describe(found: dict[str, Any]) -> str:
    """Return CPU seconds, shares and ranks in words."""
    return (
        f"an interval of a trial: {found['round_seconds']:.1f} CPU s of rounds; a score of {FEW} "
        f"{1 / found['ours']:.1f}, of {ALL} {1 / found['theirs']:.1f} CPU s\n"
        f"share of scores {found['score_share']:.0%}, with {ALL} {found['score_share_before']:.0%} "
        f"(medians over {found['repeats']} scores)\n"
        f"of {found['pairs']} pairs of trials after the same images, both rank {found['equal_pairs']} alike"
    )


class _Trial:
    """A trial that is trained as its worker would, without exploits."""

    def __init__(self, config: RunSpec, data: DataSet) -> None:
        self.config, slots = config, Slots(config.slots)
        self.state: TrainingState = new_state(config, torch.device("cpu"), slots)
        order = Order(data.sizes, slots.total, config.run.seed, config.data.shuffle_shards)
        cache = open_cache(config.data.cache_mib)
        self.stream = Stream(data, config.data, order, slots.owned, 0, self.state.device, cache, 2)

    def train(self, images: int) -> None:
        until = self.state.images + images
        while self.state.images < until:
            self.state.round(self.stream.next)

    @property
    def generated(self) -> GeneratedImages:
        """Images of the EMA generator, as its own scores see them."""
        return GeneratedImages(self.state.game, self.state.ema_networks, self.state.seed)


def _evaluator(spec: RunSpec, data: DataSet, samples: int) -> Evaluator:
    settings = spec.evaluate
    reals = RealImages(open_scored(data, settings, samples), samples, spec.data.fields, target=spec.objective.target)
    extractor = open_extractor(settings.extractor, settings.extractor_weights)
    return Evaluator(extractor, reals, samples, {}, open_storage(spec.run.storage))


def _cpu_seconds(step: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    found = step()
    return time.process_time() - begun, found


def _equal_pairs(few: dict[int, list[float]], whole: dict[int, list[float]]) -> tuple[int, int]:
    """Return how many pairs of trials, each after the same interval, both rank alike, and the number of pairs."""
    equal = pairs = 0
    for interval, values in few.items():
        for (a, b), (x, y) in zip(combinations(values, 2), combinations(whole[interval], 2), strict=True):
            equal += math.copysign(1, a - b) == math.copysign(1, x - y)
            pairs += 1
    return equal, pairs
