"""Section `tune` of a config: a search over hyper-parameters."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ganrun.config.field_types import Count, Finite, Mode, Positive, Section, listed


class MutationConfig(Section):
    """Prior of a hyper-parameter: exactly one of the three."""

    log_uniform: Annotated[tuple[Positive, Positive] | None, BeforeValidator(listed)] = None
    """Log-uniform between two positive numbers."""
    uniform: Annotated[tuple[Finite, Finite] | None, BeforeValidator(listed)] = None
    """Uniform between two numbers."""
    choice: Annotated[tuple[Any, ...] | None, BeforeValidator(listed)] = None
    """List of values, ordered so that neighbours are similar."""

    @property
    def ends(self) -> tuple[Any, ...]:
        """Least and greatest value; all values of a choice."""
        return self.log_uniform or self.uniform or self.choice or ()


class TuneConfig(Section):
    """Hyper-parameter search by `ganrun tune`: several runs of this config (trials) side by side."""

    method: Literal["population", "random", "seeds"] = "population"
    """Search method. population: population-based training (arXiv:1711.09846); random: each trial keeps its first
    draw; seeds: the same config with a different seed per trial."""
    population: Annotated[Count, Field(le=100)] = 4
    """Number of trials, 1 to 100; each has its own cluster.workers."""
    perturb_every_images: Count
    """Real images between comparisons: a multiple of evaluate.every_images that divides train.total_images."""
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """Share of worst trials (up to 0.5, at least one trial) that each copy one of the equally many best."""
    metric: str = "distance"
    """Score to compare by: distance (Fréchet distance, or mode distance for points), or one of evaluate.metrics."""
    samples: Annotated[Count | None, Field(ge=2)] = None
    """Samples of scores that compare trials; the best checkpoint of all is then scored by evaluate.samples. Unset:
    evaluate.samples for all."""
    mode: Mode | None = None
    """Direction: min if lower is better, max if higher is; unset: that of the built-in score."""
    mutations: dict[str, MutationConfig] = {}
    """Priors by dotted key: `optimizer.generator.learning_rate: {log_uniform: [1e-5, 1e-3]}`."""
    resample_probability: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Probability that an exploit redraws a hyper-parameter from its prior; else the donor's value is perturbed."""
    perturbation_factors: Annotated[tuple[Positive, Positive], BeforeValidator(listed)] = (0.8, 1.2)
    """Factors for the donor's value, chosen with equal probability."""
