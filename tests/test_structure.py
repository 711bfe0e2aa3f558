"""The structure is the one that docs/architecture.md shows: layers, cycles, who imports Ray, a line for each module."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganrun.__main__ import VERBS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ganrun"
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
LAYERS = [
    {"errors", "rng", "slots"},
    {"storage"},
    {"config"},
    {"models", "data", "telemetry"},
    {"games", "run_folder"},
    {"training", "evaluation"},
    {"worker", "inference", "cli", "preparation", "extend"},
    {"ray_backend", "api"},
    {"tuning", "benchmarks"},
    {*VERBS},
]
"""The lowest first. What is in one layer does not import each other."""


def trees() -> Iterator[tuple[str, ast.Module]]:
    yield from ((name, ast.parse(path.read_text())) for name, path in MODULES.items())


def imported(tree: ast.AST) -> set[str]:
    """Return all modules that are imported anywhere in the tree, also within functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in whole if name in MODULES} or {node.module}
    return found


def part(module: str) -> str:
    """Return the package, or the module directly in ganrun, that a module belongs to."""
    return [*module.split("."), ""][1]


def layer(name: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if name in names)


def test_every_package_and_module_is_in_one_layer():
    parts = {part(name) for name in MODULES} - {"", "__main__"}
    assert sorted(parts) == sorted(name for names in LAYERS for name in names)


def test_imports_point_down():
    up = [
        f"{name} imports {other}"
        for name, tree in trees()
        for other in imported(tree)
        if other.startswith("ganrun.") and part(name) not in ("", "__main__", part(other))
        if layer(part(other)) >= layer(part(name))
    ]
    assert up == []


def test_modules_import_each_other_in_no_circle():
    below = {name: {other for other in imported(tree) if other in MODULES} - {name} for name, tree in trees()}
    while leaves := [name for name, others in below.items() if not others & below.keys()]:
        for name in leaves:
            del below[name]
    assert below == {}


def test_only_ray_backend_and_tuning_import_ray():
    with_ray = {part(name) for name, tree in trees() if any(other.split(".")[0] == "ray" for other in imported(tree))}
    assert with_ray == {"ray_backend", "tuning"}


WHOLE_CONFIG = {
    *("train", "tune", "bench", "api.run", "cli.preflight", "run_folder.run_config"),
    *(
        "games.build",
        "inference.model_card",
        "inference.matching",
        "inference.saved",
        "training.new_state",
        "training.tiny_round",
        "worker.worker",
        "worker.host",
        "worker.resume",
        "worker.profile_rounds",
    ),
    *("ray_backend.launch", "tuning.records", "tuning.population", "tuning.trial_config"),
    *("tuning.trainable", "tuning.tuner", "tuning.scheduler"),
}
"""Modules outside `config` and `benchmarks` that may annotate a whole Config or RunSpec: commands, launch, set-up of
a worker, and the trials of a search. Every other part takes the sections it uses."""


def test_parts_receive_their_sections_of_the_config():
    whole = {
        name.removeprefix("ganrun.")
        for name, tree in trees()
        if part(name) not in ("config", "benchmarks")
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Constant)
        if {"Config", "RunSpec"} & {getattr(node, "id", None), getattr(node, "value", None)}
    }
    assert whole == WHOLE_CONFIG


def test_the_algorithm_knows_neither_storage_nor_ranks_nor_time():
    for name in ("games.gan", "games.game", "games.losses", "training.player_step", "training.loop"):
        others = imported(ast.parse(MODULES[f"ganrun.{name}"].read_text()))
        assert not [
            other for other in others if re.search(r"storage|checkpoint|worker|ray|^time$|torch.distributed$", other)
        ]


def test_the_algorithm_is_a_page():
    assert len(MODULES["ganrun.games.gan"].read_text().splitlines()) <= 150


def test_the_map_names_every_module_with_a_line():
    mapped, folders = [], [""]
    block = ARCHITECTURE.split("## Where things are")[1].split("```")[1]
    for line in block.strip().splitlines()[1:]:
        indent, name, words = re.fullmatch(r"( +)([\w.]+/?) +(\S.*)", line).groups()
        folders[len(indent) // 2 :] = []
        if name.endswith("/"):
            folders.append(name)
        mapped.append("".join(folders) + ("" if name.endswith("/") else name))
        assert len(words) > 3
    there = {path.relative_to(PACKAGE).as_posix() for path in MODULES.values() if not path.name.startswith("_")}
    there |= {f"{path.parent.relative_to(PACKAGE).as_posix()}/" for path in MODULES.values() if path.parent != PACKAGE}
    assert sorted(mapped) == sorted(there)


def test_the_table_of_layers_is_that_of_the_test():
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", ARCHITECTURE, re.MULTILINE)
    shown = {int(number): set(re.findall(r"`(\w+)`", names)) for number, names in rows}
    assert shown == dict(enumerate(LAYERS, 1))


def test_the_glossary_explains_our_words():
    explained = re.findall(r"^\| \*\*(\w+)\*\*", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    assert {"slot", "player", "turn", "round", "condition", "attempt", "exploit"} <= set(explained)
    assert len(explained) == len(set(explained))


@pytest.mark.parametrize("name", MODULES)
def test_files_and_functions_are_short(name):
    text = MODULES[name].read_text()
    assert text.count("\n") <= 300
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    assert [node.name for node in functions if node.end_lineno - node.lineno >= 50] == []


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_name_arguments_that_there_are(name):
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            assert documented(node) <= arguments(node), node.name


def documented(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    """Return the names in the sections Args and Attributes of a docstring."""
    sections = re.findall(r"(?:Args|Attributes):\n((?:    .*\n?|\n)+)", ast.get_docstring(node) or "")
    found = [names for section in sections for names in re.findall(r"^    (\w[\w, ]*):", section, re.MULTILINE)]
    return {name for names in found for name in names.split(", ")}


def arguments(node: ast.FunctionDef | ast.ClassDef) -> set[str]:
    """Return the arguments of a function, or the fields and arguments of a class."""
    if isinstance(node, ast.ClassDef):
        fields = {each.target.id for each in node.body if isinstance(each, ast.AnnAssign)}
        methods = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
        own = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute) and each.attr[0] != "_"}
        return fields.union(own, *(arguments(method) for method in methods))
    further = [node.args.kwarg] if node.args.kwarg else []
    return {each.arg for each in [*node.args.args, *node.args.kwonlyargs, *further]}


def test_few_files_lie_directly_in_the_package():
    assert len(list(PACKAGE.glob("*.py"))) <= 20
    assert not (PACKAGE / "utils.py").exists()
