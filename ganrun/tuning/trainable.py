"""A trial of a search under Ray Tune: a process that runs the workers of one run."""

from concurrent.futures import wait
from typing import Any

from ganrun.config.run_spec import RunSpec
from ganrun.errors import RunError, UserError
from ganrun.ray_backend import launch
from ganrun.ray_backend.cluster import in_thread
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
    """Train a trial, resuming from its folder, and report its workers' events to Ray Tune.

    Args:
        settings: Ray Tune's config of the trial: its name, and its initial hyper-parameters for display.
        search: the resolved search.
        boxes: the mailbox of each trial.
    """
    from ray import get, tune

    name = settings["trial"]
    get(boxes[name].clear.remote())
    try:
        # Exploits are written before they are sent: a later one comes through the mailbox.
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
            wait([fitted], SETTLE_SECONDS)  # Wait until Ray Train has released its resources.
        if events:
            tune.report(metrics.result(events))


def write_trial_config(search: RunSpec, population: Population, name: str) -> RunSpec:
    """Write the current config of a trial to its folder and return it."""
    config = trial_config(search, name, population.values[name])
    run_config.write_config(config, RunFolder(open_storage(config.run.uri)))
    return config


def exploit_command(search: RunSpec, exploit: TrialExploit | None) -> Exploit | None:
    """Return the command of an exploit. Workers ignore one that they have carried out."""
    if exploit is None:
        return None
    donor = f"{search.run.uri}/trials/{exploit.donor}"
    return Exploit(exploit.number, donor, exploit.checkpoint, exploit.after)
