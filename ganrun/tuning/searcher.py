"""Searcher and stopper of Ray Tune for a search: both ask the scheduler."""

from typing import Any

from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from ganrun.tuning.scheduler import Scheduler


class TrialQueue(Searcher):  # type: ignore[misc]
    """Searcher that suggests a trial when there is room for it: Ray Tune itself starts all suggested trials at once."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self.scheduler = scheduler

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the config of the next trial, with its name and, for display, its hyper-parameters; None: not yet."""
        name = self.scheduler.up_next()
        if name is None or self.scheduler.trials[name].tune_trial:
            return None
        return {"trial": name} | self.scheduler.population.values[name]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Ignore the result."""


class SearchEnd(Stopper):  # type: ignore[misc]
    """Stopper that ends the search. Trials end by themselves."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return False: no trial ends by its result."""
        return False

    def stop_all(self) -> bool:
        """Return True if the search is over."""
        return self.scheduler.all_over()
