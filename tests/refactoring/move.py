# ruff: noqa
"""Moves modules into their packages and adjusts imports; renames nothing inside. Removed once it has run.

python tests/refactoring/move.py && ruff check --select I --fix . && ruff format .
"""

import ast
import re
import subprocess
from pathlib import Path

PACKAGES = {
    "benchmarks": "What `ganrun bench` measures of this machine, each with what a user would pick instead beside it.",
    "cli": "What commands share: entry point, preflight, progress, signals.",
    "config": "A run's config: its schema, reading and checking it, the names it may use. Imports no torch and no ray.",
    "inference": "From a checkpoint to images, scores and programs.",
    "ray_backend": "Ray: the cluster, the workers' launch and rendezvous, scaling policies, evaluation tasks.",
    "run_folder": "The folder of a run: layout, lease, status, curve, report, clean-up. Imports no torch and no ray.",
    "training": "Training state, a player's step, the loop, EMA, checkpoints, metrics.",
    "tuning": "Population-based training on Ray Tune: population, explore, scheduler, trials, records, plots.",
    "worker": "One worker of a run, from config to end, without Ray.",
}
MODULES = {
    "benches": {
        "*": "benchmarks",
        "in_lightning": "lightning_step",
        "textbook": "tutorial_step",
        "lanes": "simulated_reads",
        "phases": "round_phases",
        "units": "unit_costs",
    },
    "distributed": {
        "bare": "ray_backend.bare_trainer",
        "beginning": "worker.resume",
        "behind": "worker.async_writers",
        "change": "worker.transitions",
        "connection": "ray_backend.cluster",
        "elastic": "ray_backend.policies",
        "head": "ray_backend.head_watch",
        "host": "worker.host",
        "launch": "ray_backend.launch",
        "line": "worker.channel",
        "meeting": "ray_backend.rendezvous",
        "profiled": "worker.profile_rounds",
        "scheduler": "tuning.scheduler",
        "scores": "ray_backend.evaluation_tasks",
        "search": "tuning.tuner",
        "tally": "worker.rank_stats",
        "trial": "tuning.trainable",
        "worker": "worker.worker",
    },
    "records": {
        "lines": "run_folder.curve",
        "past": "run_folder.totals",
        "plot": "run_folder.plot",
        "removal": "run_folder.cleanup",
        "run": "run_folder.status",
        "search": "tuning.records",
        "search_plot": "tuning.plots",
        "spent": "run_folder.time_breakdown",
        "words": "run_folder.report",
    },
    "search": {
        "explore": "tuning.explore",
        "faults": "config.validate_search",
        "keys": "config.tunable",
        "population": "tuning.population",
        "reporting": "tuning.reporting",
        "trials": "tuning.trial_config",
        "words": "tuning.summary",
    },
    "": {
        "augment": "games.augment",
        "checkpoint": "training.checkpoint",
        "config": "config.load",
        "config_faults": "config.validate",
        "display": "cli.progress",
        "door": "cli.entry_point",
        "ema": "training.ema",
        "features": "models.extractors",
        "latent": "games.latent",
        "loop": "training.loop",
        "losses": "games.losses",
        "palette": "telemetry.palette",
        "penalties": "games.penalties",
        "picture": "evaluation.pictures",
        "plain_yaml": "config.safe_yaml",
        "play": "training.state",
        "preflight": "cli.preflight",
        "profiling": "telemetry.profiler",
        "run_folder": "run_folder.layout",
        "sampling": "inference.sampling",
        "scoring": "inference.scoring",
        "sections": "config.schema",
        "signals": "cli.signals",
        "tables": "config.registry",
        "turn": "training.player_step",
    },
    "data": {"damaged": "data.corrupt_samples", "plain_tar": "data.ustar"},
    "evaluation": {
        "evaluation": "evaluation.evaluator",
        "generated": "evaluation.generated_images",
        "observation": "evaluation.feature_statistics",
        "points": "evaluation.point_evaluator",
        "reals": "evaluation.real_images",
        "stacked": "evaluation.stacked_modes",
        "statistics": "evaluation.moments",
    },
    "preparation": {
        "examine": "preparation.existing_shards",
        "finish": "preparation.write_index",
        "pool": "preparation.process_pool",
        "published": "preparation.published_datasets",
        "tally": "preparation.convert_samples",
    },
    "storage": {"place": "storage.base", "s3_faults": "storage.s3_errors"},
    "telemetry": {
        "accounts": "telemetry.time_accounting",
        "marks": "telemetry.spans",
        "recorder": "training.metric_recorder",
        "search": "telemetry.search_state",
        "stopwatch": "telemetry.timer",
    },
}
TESTS = {
    "test_augment": "games.test_augment",
    "test_checkpoint": "training.test_checkpoint",
    "test_config": "config.test_load",
    "test_doors_s3": "cli.test_commands_s3",
    "test_ema": "training.test_ema",
    "test_latent": "games.test_latent",
    "test_loop": "training.test_loop",
    "test_losses": "games.test_losses",
    "test_penalties": "games.test_penalties",
    "test_picture": "evaluation.test_pictures",
    "test_preflight": "cli.test_preflight",
    "test_profiling": "telemetry.test_profiler",
    "test_run_folder": "run_folder.test_layout",
    "test_sampling": "inference.test_sampling",
    "test_turn": "training.test_player_step",
    "benches.test_lanes": "benchmarks.test_simulated_reads",
    "benches.test_scale": "benchmarks.test_scale",
    "data.test_damaged": "data.test_corrupt_samples",
    "distributed.test_behind": "worker.test_async_writers",
    "distributed.test_elastic": "ray_backend.test_policies",
    "distributed.test_equality": "worker.test_equality",
    "distributed.test_exploit": "worker.test_exploit",
    "distributed.test_head": "ray_backend.test_head_watch",
    "distributed.test_jobs": "ray_backend.test_jobs",
    "distributed.test_policies": "ray_backend.test_group_start",
    "distributed.test_resize": "ray_backend.test_resize",
    "distributed.test_rollback": "worker.test_rollback",
    "distributed.test_scores": "ray_backend.test_evaluation_tasks",
    "distributed.test_search": "tuning.test_tuner",
    "distributed.test_traffic": "worker.test_traffic",
    "distributed.test_worker": "worker.test_worker",
    "evaluation.test_extractors": "models.test_extractors",
    "evaluation.test_features": "models.test_efficientnet_lite",
    "evaluation.test_observation": "evaluation.test_feature_statistics",
    "evaluation.test_points": "evaluation.test_point_evaluator",
    "evaluation.test_reals": "evaluation.test_real_images",
    "evaluation.test_stacked": "evaluation.test_stacked_modes",
    "evaluation.test_statistics": "evaluation.test_moments",
    "preparation.test_known": "preparation.test_points_and_stacked",
    "records.making": "run_folder.making",
    "records.test_past": "run_folder.test_totals",
    "records.test_plot": "run_folder.test_plot",
    "records.test_removal": "run_folder.test_cleanup",
    "records.test_run": "run_folder.test_status",
    "records.test_search": "tuning.test_records",
    "records.test_spent": "run_folder.test_time_breakdown",
    "search.making": "tuning.making",
    "search.test_explore": "tuning.test_explore",
    "search.test_keys": "config.test_tunable",
    "search.test_population": "tuning.test_population",
    "search.test_reporting": "tuning.test_reporting",
    "telemetry.test_accounts": "telemetry.test_time_accounting",
    "telemetry.test_recorder": "training.test_metric_recorder",
    "telemetry.test_stopwatch": "telemetry.test_timer",
}
SYMBOLS = {("ganrun.config", "Config"): "ganrun.config.schema"}
"""What was imported from a module that had it from another."""
SAME_NAME = {"ganrun.config", "ganrun.run_folder"}
"""Old modules whose name is now a package's."""
PROSE = {
    "tests/test_golden_keys.py": {"ganrun.benches.": "ganrun.benchmarks."},
    "ganrun/bench.py": {"ganrun.benches.": "ganrun.benchmarks."},
    "ganrun/telemetry/profiler.py": {"marks of turn.py and play.py": "marks of training/player_step.py and state.py"},
    "ganrun/training/player_step.py": {"(play.py)": "(state.py)"},
    "ganrun/tuning/tuner.py": {"`trial.py`": "`trainable.py`"},
    "ganrun/run_folder/status.py": {"(spent.py)": "(time_breakdown.py)"},
    "ganrun/run_folder/time_breakdown.py": {},
    "docs/internals.md": {
        "(`turn.py`)": "(`training/player_step.py`)",
        "(`penalties.py`)": "(`games/penalties.py`)",
        "`meeting.py`": "`ray_backend/rendezvous.py`",
    },
    "tests/config/test_load.py": {
        "from ganrun.config import load; load(": "from ganrun.config.load import load; load(",
        "import ganrun.storage, ganrun.run_folder, ": "import ganrun.storage, ganrun.run_folder.layout, ",
    },
    "tests/ray_backend/test_evaluation_tasks.py": {
        "\nfrom ganrun.config import Config\n": "\nfrom ganrun.config.schema import Config\n"
    },
    "tests/worker/test_rollback.py": {"\nfrom ganrun import losses\n": "\nfrom ganrun.games import losses\n"},
    "tests/test_project.py": {
        'path.parent.name != "distributed"': 'path.parent.name not in ("ray_backend", "tuning")',
        "distributed\\.(host|l|w)": "worker|ray_backend",
        'PACKAGE / "losses.py", PACKAGE / "turn.py", PACKAGE / "loop.py"': (
            'PACKAGE / "games/losses.py", *(PACKAGE / "training").glob("[lp]*.py")'
        ),
    },
}
"""What no rule finds: code in strings, and files named without their folder."""
TEXTS = ("*.py", "*.md", "*.yaml", "*.yml", "*.toml", "Makefile", "Dockerfile", "*.json")


def moves() -> dict[str, str]:
    """Every module that moves: old dotted name to new."""
    found = {}
    for package, modules in MODULES.items():
        for path in Path("ganrun", package.replace(".", "/")).glob("*.py"):
            old = ".".join(part for part in ("ganrun", package, path.stem) if part)
            if path.stem == "__init__":
                continue
            if path.stem in modules:
                new = modules[path.stem]
                found[old] = f"ganrun.{new}" if "." in new else f"ganrun.{modules['*']}.{new}"
            elif "*" in modules:
                found[old] = f"ganrun.{modules['*']}.{path.stem}"
    return found | {
        f"tests.{old}": f"tests.{new}" for old, new in TESTS.items() if module_path(f"tests.{old}").exists()
    }


def module_path(name: str) -> Path:
    return Path(name.replace(".", "/") + ".py")


def rewrite_imports(text: str, moved: dict[str, str]) -> str:
    """The source with every import statement of a moved module adjusted, each name on a statement of its own."""
    lines = text.splitlines(keepends=True)
    for node in sorted(ast.walk(ast.parse(text)), key=lambda node: -getattr(node, "lineno", 0)):
        if not isinstance(node, ast.ImportFrom) or not node.module or node.level:
            continue
        new = [line for alias in node.names if (line := imported(node.module, alias, moved))]
        if new == [plain(node.module, alias) for alias in node.names]:
            continue
        indent = " " * node.col_offset
        end = lines[node.end_lineno - 1][node.end_col_offset :]
        lines[node.lineno - 1 : node.end_lineno] = [indent + ("\n" + indent).join(new) + end]
    return "".join(lines)


def plain(module: str, alias: ast.alias) -> str:
    return f"from {module} import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")


def imported(module: str, alias: ast.alias, moved: dict[str, str]) -> str:
    whole, local = f"{module}.{alias.name}", alias.asname or alias.name
    if whole in moved:
        parent, _, leaf = moved[whole].rpartition(".")
        return f"from {parent} import {leaf}" + (f" as {local}" if local != leaf else "")
    if home := SYMBOLS.get((module, alias.name)):
        return f"from {home} import {alias.name}"
    return plain(moved.get(module, module), alias)


def rewrite_text(text: str, moved: dict[str, str]) -> str:
    """Dotted names and paths of moved modules in strings, comments and documents."""
    for old in sorted(moved, key=len, reverse=True):
        if old in SAME_NAME:
            continue
        text = re.sub(rf"(?<![\w.]){re.escape(old)}(?!\w)", moved[old], text)
        path, new = module_path(old), module_path(moved[old])
        for start in ("", "ganrun/"):
            short = path.as_posix().removeprefix("ganrun/")
            if "/" in short or start:
                text = re.sub(
                    rf"(?<![\w/]){start}{re.escape(short)}(?!\w)", start + new.as_posix().removeprefix("ganrun/"), text
                )
    return text


def main() -> None:
    moved = moves()
    files = subprocess.run(["git", "ls-files", *TEXTS], capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, files):
        path = Path(name)
        if "refactoring" in name or ("tests/data/" in name and path.suffix != ".py"):
            continue
        text = path.read_text()
        changed = rewrite_imports(text, moved) if path.suffix == ".py" else text
        changed = rewrite_text(changed, moved)
        if changed != text:
            path.write_text(changed)
    for package, docstring in PACKAGES.items():
        folder = Path("ganrun", package)
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text(f'"""{docstring}"""\n')
    for name in sorted({new.split(".")[1] for old, new in moved.items() if old.startswith("tests.")}):
        Path("tests", name).mkdir(exist_ok=True)
        Path("tests", name, "__init__.py").touch()
    for old, new in moved.items():
        subprocess.run(["git", "mv", module_path(old), module_path(new)], check=True)
    for folder in ("ganrun", "tests"):
        for path in Path(folder).glob("*/__init__.py"):
            if len(list(path.parent.glob("*"))) <= 1 + (path.parent / "__pycache__").exists():
                subprocess.run(["git", "rm", "-q", "-f", path], check=True)
    subprocess.run(["git", "mv", "tests/evaluation/cat.jpg", "tests/models/cat.jpg"], check=True)
    for name, changes in PROSE.items():
        text = Path(name).read_text()
        for old, new in changes.items():
            assert old in text, (name, old)
            text = text.replace(old, new)
        Path(name).write_text(text)
    subprocess.run(["git", "add", "ganrun", "tests"], check=True)


if __name__ == "__main__":
    main()
