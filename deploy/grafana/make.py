"""Generate the dashboards from the series in ganrun/telemetry/series.py: run `python deploy/grafana/make.py`.

Run it after a change of this file, of panels.py or of series.py.
"""

from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard, DashboardLink, Row
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueTextMode as TextMode
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DashboardLinkType, Panel
from panels import GOOD_AT_0, Column, Figure, Graph, mark, over_images, population, variable

from ganrun.telemetry.series import BY_NAME

FOLDER = Path(__file__).parent / "dashboards"
Rows = dict[str, list[Builder[Panel]]]
SHARES = "Rounds, waiting for data, scores, checkpoints' copies, samples and telemetry, since the run began."
NODE = '{ip=~"$node"}'
"""Label filter of Ray's metrics for the selected nodes."""


def of(name: str, **labels: str) -> str:
    """Return the PromQL selector of a series for the selected runs and trials."""
    more = "".join(f',{label}="{value}"' for label, value in labels.items())
    return f'{BY_NAME[name].full_name}{{run=~"$run",trial=~"$trial"{more}}}'


def rule(name: str) -> str:
    """Return the PromQL selector of a recording rule for the selected runs and trials."""
    return f'{name}{{run=~"$run",trial=~"$trial"}}'


def curve(title: str, *names: str, unit: str = "") -> Graph:
    """Return a graph of series, with a curve for each value of their labels and each trial."""
    parts = {name: " ".join(f"{{{{{label}}}}}" for label in BY_NAME[name].labels) for name in names}
    prefix = {name: name.replace("_", " ") + " " if len(names) > 1 else "" for name in names}
    return Graph(title, {of(name): f"{prefix[name]}{parts[name]} {{{{run}}}} {{{{trial}}}}" for name in names}, unit)


def glance() -> list[Builder[Panel]]:
    """Return panels of the state of a run at a glance."""
    return [
        Figure("State", of("up"), ((None, "text"),)).words({1: ("running", "green"), 0: ("not running", "#808080")}),
        Figure("Ended", of("ended"), ((None, "text"),), legend="{{ending}}").text_mode(TextMode.NAME).no_value("no"),
        Figure("Done", f"{of('images')} / {of('target_images')}", unit="percentunit"),
        Figure(
            "Time left",
            rule("run:ganrun_left_seconds:avg15m"),
            unit="s",
            help="At the mean pace of the last 15 minutes, without scores.",
        ),
        Figure("Pace", of("images_per_second")),
        Figure("Fréchet distance", of("frechet_distance"), legend="{{extractor}} {{samples}}"),
        Figure("Data wait", of("data_wait_ratio"), ((None, "green"), (0.1, "orange"), (0.3, "red"))),
        Figure(
            "Checkpoint's age",
            f"time() - {of('checkpoint_last_success_timestamp_seconds')}",
            ((None, "green"), (1800, "orange"), (3600, "red")),
            help="Work that a crash would lose now.",
        ),
    ]


def speed() -> list[Builder[Panel]]:
    """Return panels of throughput, and of the time that each part takes."""
    pace = {
        of("images_per_second"): "now {{run}} {{trial}}",
        rule("run:ganrun_images_per_second:median6h"): "median of 6 h {{run}} {{trial}}",
    }
    spent = of("seconds_total")
    shares = f"{spent} / ignoring (part) group_left sum without (part) ({spent})"
    return [
        Graph("Pace", pace).min(0),
        curve("Share of time spent waiting for data", "data_wait_ratio").min(0).max(1).limit(0.3),
        curve("A round, and each rank's part of it", "round_seconds", "rank_round_seconds").min(0),
        Graph(
            "Stragglers: a rank's time over the others'",
            {rule("rank:ganrun_rank_round_seconds:over_others"): "{{rank}} {{run}} {{trial}}"},
            "none",
            "A rank's time a round over the mean of the others'. All wait for the slowest.",
        ).limit(1.5),
        Graph("Read from storage", {f"rate({of('shard_bytes_total')}[$__rate_interval])": "{{run}} {{trial}}"}, "Bps"),
        Graph("Where rank 0's time goes", {shares: "{{part}} {{run}} {{trial}}"}, "percentunit", SHARES).min(0).max(1),
        curve("Progress", "images", "images_total"),
    ]


def run_rows() -> Rows:
    """Return the rows of dashboard Run: state, learning, speed, safety."""
    counted = ("nonfinite_total", "rollbacks_total", "checkpoint_failures_total", "samples_skipped_total")
    titles = ("Turns not finite", "Rollbacks", "Checkpoints failed", "Samples skipped")
    return {
        "At a glance": glance(),
        "Does it learn?": [
            curve("Losses", "loss"),
            curve("Discriminator's logit of real and generated images", "logit"),
            curve("Sign of the discriminator's logits of real images", "logit_sign").min(-1).max(1),
            curve("Gradient norms", "gradient_norm").logarithmic(),
            curve("Fréchet distance", "frechet_distance"),
            curve("Distance from a mixture whose modes are known", "mode_distance").min(0).max(1),
            curve("Kernel distance", "kid"),
            curve("Precision and recall", "precision", "recall").min(0).max(1),
            curve("Other metrics of samples, beside trivial baselines", "evaluation"),
            curve("Worse than the best baseline", "worse_than_baseline").min(0).max(1).limit(1),
            curve("Learning rates", "learning_rate", unit="sci").logarithmic(),
            curve("Diversity of samples", "sample_diversity").min(0),
            curve("Collapse suspected", "collapse_suspected").min(0).max(1).limit(1),
        ],
        "Is it fast?": speed(),
        "Is it safe?": [
            *[Figure(title, of(name), GOOD_AT_0) for title, name in zip(titles, counted, strict=True)],
            Figure("Restarts", of("restarts_total"), GOOD_AT_0, legend="{{reason}}").span(6),
            Figure("Reads tried again", of("shard_errors_total"), GOOD_AT_0, legend="{{kind}}").span(6).no_value("0"),
            curve("Checkpoint: written in, and blocked for", "checkpoint_seconds", "checkpoint_blocked_seconds").min(0),
            curve("Checkpoint's size", "checkpoint_bytes").min(0),
            curve("Workers", "workers").min(0).decimals(0),
        ],
    }


def search_rows() -> Rows:
    """Return the rows of dashboard Search: population and lineage."""
    images = Column("images", f"max by (trial) ({of('images')})")
    score = Column("score", f"min by (trial) ({of('frechet_distance')})")
    rates = tuple(
        Column(player, f"max by (trial) ({of('learning_rate', player=player)})", "sci")
        for player in ("discriminator", "generator")
    )
    exploits = Column("exploits", f"max by (trial) ({of('exploits_total')})")
    chosen = '{run=~"$run"}'
    return {
        "At a glance": [
            Figure("Best score", f"min({of('frechet_distance')})").span(4),
            Figure("Exploits", f"sum({of('exploits_total')})").span(4),
            Figure("Images of all trials", f"sum({of('images_total')})").span(4),
            Graph("Trials by state", {f"sum by (state) (ganrun_trials{chosen})": "{{state}}"})
            .span(12)
            .height(4)
            .stacked(),
        ],
        "Population": [
            population("Trials now", (images, score, *rates, exploits)),
            over_images("Scores over images", (images, score)),
            over_images("Learning rates over images", (images, *rates)),
        ],
        "Lineage": [
            Graph("Images of each trial", {images.expression: "{{trial}}"}).span(12),
            Graph("Exploits of each trial", {exploits.expression: "{{trial}}"}).span(12).decimals(0),
        ],
    }


def cluster_rows() -> Rows:
    """Return the rows of dashboard Cluster: use of GPUs, and nodes as Ray reports them."""
    hours, gpu = f"sum by (run) ({of('gpu_seconds_total')}) / 3600", "{{ip}} GPU {{GpuIndex}}"
    per_million = f"{hours} / (sum by (run) ({of('images_total')}) / 1e6)"
    memory = f"ray_node_mem_used{NODE} / ray_node_mem_total{NODE}"
    network = {f"ray_node_network_{way}_speed{NODE}": f"{{{{ip}}}} {way}" for way in ("send", "receive")}
    store = {"sum by (Location) (ray_object_store_memory)": "{{Location}}"}
    store["sum(ray_resources{Name='object_store_memory'})"] = "capacity"
    return {
        "At a glance": [
            Figure("Nodes", "count(ray_node_cpu_count)", help="Nodes of Ray that answer."),
            Figure("Workers", f"sum({of('workers')} * on (run, trial) {of('up')})"),
            Figure("GPUs", "count(ray_node_gpus_utilization)", help="GPUs that Ray's nodes have.").no_value("0"),
            Figure("GPUs busy", f"avg(ray_node_gpus_utilization{NODE})", unit="percent", help="Mean over all GPUs."),
            Figure("GPU hours", f"sum({of('gpu_seconds_total')}) / 3600", unit="none").decimals(1),
            Figure("Images/s", f"sum({of('images_per_second')} * on (run, trial) {of('up')})"),
            Figure("Sidecars", "sum(up{job='ganrun'})", help="Sidecars that Prometheus reaches."),
            Figure(
                "Silent runs",
                "count(ganrun_up{run=~'$run',trial=''} == 0 unless on (run, trial) ganrun_ended)",
                GOOD_AT_0,
            ).no_value("0"),
        ],
        "GPUs": [
            Graph("GPU busy", {f"ray_node_gpus_utilization{NODE}": gpu}, "percent", "As the driver counts it.")
            .min(0)
            .max(100),
            Graph(
                "GPU memory in use", {f"ray_node_gram_used{NODE}": gpu}, "mbytes", "Of the whole GPU, by all processes."
            ).min(0),
            curve("GPU memory of each rank", "gpu_memory_bytes").min(0),
            Graph("GPU hours", {hours: "{{run}}"}, "none").span(12).min(0),
            Graph("GPU hours a million images", {per_million: "{{run}}"}, "none").span(12).min(0),
        ],
        "Nodes": [
            Graph("CPU busy", {f"ray_node_cpu_utilization{NODE}": "{{ip}}"}, "percent", "Of all cores.")
            .min(0)
            .max(100),
            Graph("Memory in use", {memory: "{{ip}}"}, "percentunit", "From 95% Ray kills workers.")
            .min(0)
            .max(1)
            .limit(0.95),
            Graph("Disk free", {f"ray_node_disk_free{NODE}": "{{ip}}"}, "bytes", "Where Ray keeps its session.").min(0),
            Graph("Network", network, "Bps", "Gradients, shards and checkpoints.").span(12),
            Graph("Object store", store, "bytes", "Shared memory of Ray; SPILLED went to disk.").span(12).min(0),
        ],
    }


def dashboard(name: str, about: str, rows: Rows) -> Dashboard:
    """Return a dashboard with these rows, and the links and annotations that all have."""
    made = Dashboard(f"ganrun: {name}").uid(f"ganrun-{name.lower()}").description(about).tags(["ganrun"])
    made.time("now-6h", "now").refresh("30s").timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR)
    made.link(
        DashboardLink("Dashboards")
        .type(DashboardLinkType.DASHBOARDS)
        .tags(["ganrun"])
        .include_vars(True)
        .keep_time(True)
    )
    marks = {
        "Restart": ("restarts_total", "orange"),
        "Rollback": ("rollbacks_total", "red"),
        "Exploit": ("exploits_total", "purple"),
    }
    for title, (counter, colour) in marks.items():
        labels = " ".join(f"{{{{{label}}}}}" for label in ("run", "trial", *BY_NAME[counter].labels))
        made.annotation(mark(title, f"changes({of(counter)}[1m]) > 0", colour, labels))
    for title, panels in rows.items():
        made.with_row(Row(title))
        for panel in panels:
            made.with_panel(panel)
    return made


def dashboards() -> dict[str, str]:
    """Return the JSON of each dashboard by file name."""
    of_runs = variable("run", 'label_values(ganrun_up{run!=""}, run)')
    searches = variable("run", "label_values(ganrun_trials, run)")
    all_runs = variable("run", 'label_values(ganrun_up{run!=""}, run)', ".+")
    trials = variable("trial", 'label_values(ganrun_up{run=~"$run",trial!=""}, trial)', ".*")
    nodes = variable("node", "label_values(ray_node_cpu_count, ip)", ".*")
    made = {
        "run": dashboard("Run", "One run.", run_rows()).variables([of_runs, trials]),
        "search": dashboard("Search", "A population of trials.", search_rows()).variables([searches, trials]),
        "cluster": dashboard("Cluster", "Machines and what they cost.", cluster_rows()).variables(
            [all_runs, trials, nodes]
        ),
    }
    return {
        f"{name}.json": JSONEncoder(sort_keys=True, indent=1).encode(each.build()) + "\n" for name, each in made.items()
    }


if __name__ == "__main__":
    for file, text in dashboards().items():
        (FOLDER / file).write_text(text)
