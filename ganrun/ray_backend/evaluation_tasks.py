"""Scores as Ray tasks on idle resources of the cluster. No worker waits for them or dies with them."""

import math
import time
from typing import Any

from ganrun.config.schema import ClusterConfig, EvaluateConfig, RunConfig
from ganrun.telemetry.messages import Event, LastScoresAwaited, Restart, SamplePicture, ScoreFound, WorkersStarted
from ganrun.telemetry.records import Exploited, RolledBack, ScoreWanted

LAST_CALL_SECONDS = 30.0
"""Timeout for idle resources once the training itself is complete."""


class EvaluationTasks:
    """Queue of checkpoints to score, one at a time. Results are commands to the workers.

    While its workers live, every `ScoreWanted` gets a `ScoreFound`, with a score or a reason. In a run only the newest
    request waits for idle resources. In a search all requests wait, since trials are compared at every score.

    Args:
        run, evaluate, cluster: sections of the run's config. Ray must be initialised.
        search: True for a trial of a search.
    """

    def __init__(self, run: RunConfig, evaluate: EvaluateConfig, cluster: ClusterConfig, search: bool) -> None:
        self.cluster, self._search = cluster, search
        self._task = (run.uri, evaluate.metrics, cluster.cpus_per_worker)
        self._waiting: list[ScoreWanted] = []
        self._running: tuple[ScoreWanted, Any] | None = None
        self._answers: list[ScoreFound] = []
        self._until = math.inf
        """Deadline of the waiting requests, by time.monotonic()."""

    def handle(self, event: Event) -> None:
        """Queue or drop requests by an event of the workers."""
        match event:
            case ScoreWanted():
                if not self._search:
                    self._skip("a newer one came before the cluster had anything idle")
                self._waiting.append(event)
                self._until = math.inf
            case LastScoresAwaited():
                self._until = time.monotonic() + LAST_CALL_SECONDS
            case Restart() | WorkersStarted() | Exploited() | RolledBack():
                self._cancel()
            case _:
                pass  # Not ours.

    def poll(self) -> list[ScoreFound]:
        """Start a task if resources are idle. Return the answers since the last call."""
        import ray

        if self._running and ray.wait([self._running[1]], timeout=0)[0]:
            wanted, task = self._running
            self._running = None
            self._until = max(self._until, time.monotonic() + LAST_CALL_SECONDS)
            try:
                score, picture = ray.get(task)
                self._answer(wanted, score, picture=picture)
            except Exception as error:  # Any failure of the task.
                self._answer(wanted, None, (str(error).strip().splitlines() or [type(error).__name__])[-1])
        if self._waiting and not self._running:
            if self._idle():
                self._begin(self._waiting.pop(0))
            elif time.monotonic() > self._until:
                self._skip("the cluster had nothing idle before the run ended")
        answers, self._answers = self._answers, []
        return answers

    def _cancel(self) -> None:
        """Drop all requests and the task: those who wait for the answers are gone, and new workers need its place."""
        self._waiting.clear()
        if self._running:
            import ray

            ray.cancel(self._running[1], force=True)
            self._running = None

    def _begin(self, wanted: ScoreWanted) -> None:
        self._running = wanted, _scorer(self.cluster).remote(*self._task, wanted.checkpoint)

    def _skip(self, why: str) -> None:
        for wanted in self._waiting:
            self._answer(wanted, None, why)
        self._waiting.clear()

    def _answer(
        self,
        wanted: ScoreWanted,
        score: dict[str, Any] | None,
        why: str = "",
        picture: SamplePicture | None = None,
    ) -> None:
        self._answers.append(ScoreFound(wanted.images, wanted.checkpoint, score, why, picture))

    def _idle(self) -> bool:
        import ray

        idle: dict[str, float] = ray.available_resources()
        cpus, gpus = self.cluster.cpus_per_worker, self.cluster.gpus_per_worker
        return idle.get("CPU", 0) >= cpus and idle.get("GPU", 0) >= gpus


def begin_score(uri: str, evaluate: EvaluateConfig, cluster: ClusterConfig, checkpoint: str) -> Any:
    """Start a task that scores a checkpoint of the run at `uri` by `evaluate`. Return a reference to what it returns.

    It has the resources of a worker. Ray must be initialised.
    """
    return _scorer(cluster).remote(uri, evaluate.metrics, cluster.cpus_per_worker, checkpoint, evaluate.samples)


def _scorer(cluster: ClusterConfig) -> Any:
    """Return `_score` as a Ray task with the resources of a worker."""
    import ray

    options = {"num_cpus": cluster.cpus_per_worker, "num_gpus": cluster.gpus_per_worker}
    # DEFAULT: the placement group of a Ray Tune trial has no room for tasks.
    return ray.remote(_score).options(max_retries=0, scheduling_strategy="DEFAULT", **options)


def _score(
    uri: str, metrics: tuple[str, ...], cpus: float, checkpoint: str, samples: int | None = None
) -> tuple[dict[str, Any], SamplePicture | None]:
    """Score a checkpoint of the run at `uri` and return `Score.to_json()`. Runs as the Ray task.

    Without `samples` it has as many as the run's own scores.

    With it come samples of a game whose samples are slow: its workers do not stop for them.
    """
    import torch

    from ganrun.data.index import open_data
    from ganrun.inference.sampling import Sampler
    from ganrun.inference.scoring import ScoreRequest, score
    from ganrun.worker.sample_picture import draw_samples

    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, int(cpus)))
    where = f"{uri}/checkpoints/{checkpoint}"
    found = score(where, ScoreRequest(metrics=metrics, samples=samples), lambda done, total: None).to_json()
    sampler = Sampler(where)
    if not sampler.game.samples_slowly:
        return found, None
    config, (images, attempt) = sampler.config, map(int, checkpoint.split("-"))
    index = open_data(config.data.shards, crop=config.data.crop).index
    generated = sampler.generated(config.run.seed)
    count, target = config.telemetry.sample_images, config.objective.target
    return found, draw_samples(generated, count, index, attempt, images, target)
