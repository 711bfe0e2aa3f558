"""The section `tune` of a config: a search over hyper-parameters."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ganrun.config.field_types import Count, Finite, Metric, Positive, Section, listed


class MutationConfig(Section):
    """How a hyper-parameter is drawn: exactly one of the three."""

    log_uniform: Annotated[tuple[Positive, Positive] | None, BeforeValidator(listed)] = None
    """Between two positive numbers, evenly in the logarithm."""
    uniform: Annotated[tuple[Finite, Finite] | None, BeforeValidator(listed)] = None
    """Between two numbers, evenly."""
    choice: Annotated[tuple[Any, ...] | None, BeforeValidator(listed)] = None
    """One of a list, in which neighbours are alike."""

    @property
    def ends(self) -> tuple[Any, ...]:
        """The least and the greatest value; of a choice all."""
        return self.log_uniform or self.uniform or self.choice or ()


class TuneConfig(Section):
    """A search over hyper-parameters by `ganrun tune`: several runs of this config, its trials, side by side."""

    method: Literal["population", "random", "seeds"] = "population"
    """population: the worst take over the best and vary (arXiv:1711.09846); random: each keeps what it drew first;
    seeds: the same config, each trial with another seed."""
    population: Annotated[Count, Field(le=100)] = 4
    """Trials; each has cluster.workers of its own."""
    perturb_every_images: Count
    """How often trials are compared; train.total_images is a multiple of it, and it one of evaluate.every_images."""
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """So large a part of the population, but at least one, takes over one of the equally many best."""
    metric: Literal["distance", Metric] = "distance"
    """Which score decides. distance: the run's own, of images a Fréchet distance; or one of evaluate.metrics."""
    mode: Literal["min", "max"] = "min"
    """Whether less of it is better, or more."""
    mutations: dict[str, MutationConfig] = {}
    """What is searched, by dotted key: `optimizer.generator.learning_rate: {log_uniform: [1e-5, 1e-3]}`."""
    resample_probability: Annotated[float, Field(ge=0, le=1)] = 0.25
    """So often a hyper-parameter of who takes over is drawn anew; else the donor's times one of the factors."""
    perturbation_factors: Annotated[tuple[Positive, Positive], BeforeValidator(listed)] = (0.8, 1.2)
    """Either is as likely."""
