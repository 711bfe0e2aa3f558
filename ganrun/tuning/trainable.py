"""A trial of a search, as Ray Tune runs it: in a process of its own, which has the workers of one run trained."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any

from ganrun.config.run_spec import RunSpec
from ganrun.errors import RunError, UserError
from ganrun.ray_backend import launch
from ganrun.run_folder import run_config
from ganrun.run_folder.run_folder import RunFolder
from ganrun.storage import open_storage
from ganrun.telemetry.messages import ENDINGS, Exploit, Failed, TrialExploit
from ganrun.tuning.population import Population
from ganrun.tuning.records import read_population
from ganrun.tuning.trial_config import trial_config
from ganrun.tuning.trial_metrics import TrialMetrics, metrics_of

SETTLE_SECONDS = 20.0


def train_trial(settings: dict[str, Any], search: RunSpec, boxes: dict[str, Any]) -> None:
    """Trains a trial from where its folder is, and reports what its workers say to Ray Tune as it comes.

    Args:
        settings: the config that Ray Tune shows: the trial's name, and the hyper-parameters it began with.
        search: the config.
        boxes: the mailbox of each trial.
    """
    from ray import get, tune

    name = settings["trial"]
    get(boxes[name].clear.remote())
    try:
        # An exploit is written down before anyone is told: one that is not there yet will come into the mailbox.
        population = read_population(search, open_storage(search.run.uri))
        config = write_trial_config(search, population, name)
    except (OSError, UserError, RunError) as error:
        assert search.tune is not None
        fault = Failed(str(error), wrong_input=isinstance(error, UserError))
        tune.report(TrialMetrics(search.tune.metric).result([fault]))
        return
    metrics = metrics_of(population, name)
    fitted = in_thread(launch.fit, config, boxes[name], exploit_command(search, population.last_exploit(name)))
    for events in launch.follow(config, boxes[name], fitted, lambda: False):
        if events and isinstance(events[-1], ENDINGS):
            wait([fitted], SETTLE_SECONDS)  # Until Ray Train has released its resources.
        if events:
            tune.report(metrics.result(events))


def write_trial_config(search: RunSpec, population: Population, name: str) -> RunSpec:
    """The config of a trial as it is now, written to its folder."""
    config = trial_config(search, name, population.values[name])
    run_config.write_config(config, RunFolder(open_storage(config.run.uri)))
    return config


def exploit_command(search: RunSpec, exploit: TrialExploit | None) -> Exploit | None:
    """An exploit as the workers of a trial are told of it; one that they have behind them they pass over."""
    if exploit is None:
        return None
    donor = f"{search.run.uri}/trials/{exploit.donor}"
    return Exploit(exploit.number, donor, exploit.checkpoint, exploit.after)


def in_thread(work: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Calls something in a thread that holds up no process's end; its outcome."""
    outcome: Future[Any] = Future()

    def run() -> None:
        try:
            outcome.set_result(work(*arguments))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome
