"""Log of scores from which Ray Tune builds the table of a ResultGrid."""

from typing import Any

from ray.tune.logger import JsonLoggerCallback

from ganrun.telemetry.messages import ScoreTaken
from ganrun.telemetry.records import Exploited, ScoreFailed

LOGGED = (ScoreTaken, ScoreFailed, Exploited)
"""Events that change a trial's score."""


class ScoreLog(JsonLoggerCallback):  # type: ignore[misc]
    """Logger of the results that have a new score, and of the last one, without their events.

    Ray Tune's own loggers would log every result, several a second, with the pictures among its events.
    """

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        """Append a line to the trial's result.json, in Ray Tune's own folder."""
        if result["done"] or any(isinstance(event, LOGGED) for event in result["events"]):
            super().log_trial_result(iteration, trial, {name: result[name] for name in result if name != "events"})
