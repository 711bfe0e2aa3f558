"""Private names of Ray: each is in the installed Ray as ganrun needs it, and no other module names one."""

import ast
import inspect
import re

import pytest

from ganrun.errors import RunError
from ganrun.ray_backend import internals, policies, rendezvous
from ganrun.ray_backend.internals import ELASTIC_VARIABLES, INTERNALS, LOCAL_VARIABLES, TRAIN_VARIABLES, VARIADIC
from ganrun.tuning import scheduler
from tests.test_structure import MODULES, imported

VARIABLES = LOCAL_VARIABLES + TRAIN_VARIABLES + ELASTIC_VARIABLES
DOCUMENTED = {
    "RAY_ADDRESS",
    "RAY_TMPDIR",  # ganrun reads it itself, and hands Ray the folder.
    "RAY_AUTH_MODE",
    "RAY_COLOR_PREFIX",
    "RAY_USAGE_STATS_ENABLED",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS",
    "TUNE_GLOBAL_CHECKPOINT_S",
    "TUNE_PRINT_ALL_TRIAL_ERRORS",
}
OTHERS = {name: path.read_text() for name, path in MODULES.items() if name != "ganrun.ray_backend.internals"}
WITH_RAY = {name: text for name, text in OTHERS.items() if re.match(r"ganrun\.(ray_backend|tuning)\b", name)}


def overrides():
    """Each method of Ray that a class of ganrun overrides: our class, name, Ray's class."""
    for module in (policies, rendezvous, scheduler):
        for ours in vars(module).values():
            if inspect.isclass(ours) and ours.__module__ == module.__name__:
                for name in vars(ours):
                    base = next((each for each in ours.__mro__[1:] if name in vars(each)), object)
                    if base.__module__.startswith("ray.") and inspect.isfunction(vars(base)[name]):
                        yield ours, name, base


@pytest.mark.parametrize("internal", INTERNALS, ids=lambda each: each.path.removeprefix("ray."))
def test_ray_has_the_name(internal):
    assert internals.internal_fault(internal) == ""


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda each: each.name)
def test_ray_reads_the_variable(variable):
    assert internals.variable_fault(variable) == ""


@pytest.mark.parametrize(
    ("attribute", "how"),
    [
        ("WorkerGroup._begin()", "WorkerGroup._begin is gone"),
        ("WorkerGroup._start_impl(builder)", "WorkerGroup._start_impl takes no builder"),
        ("WorkerGroup._start_impl()", "WorkerGroup._start_impl takes worker_group_state_builder"),
        ("WorkerGroup(trainer)", "WorkerGroup takes no trainer"),
    ],
)
def test_the_fault_says_what_broke_and_what_it_costs(attribute, how):
    changed = internals.Internal(internals.GROUP, attribute, "a start", "it is overridden")
    fault = internals.internal_fault(changed)
    assert fault.startswith("ray_backend/internals.py: ray.train.v2._internal.execution.worker_group.")
    assert how in fault
    assert "Needed: it is overridden. Lost without it: a start. Install a Ray that pyproject.toml allows" in fault


def test_a_variable_that_ray_does_not_read_is_a_fault():
    changed = LOCAL_VARIABLES[0]._replace(name="RAY_NO_SUCH_VARIABLE")
    assert "RAY_NO_SUCH_VARIABLE is not read any more in ray" in internals.variable_fault(changed)


def test_a_name_that_is_gone_ends_the_run_with_that_sentence(monkeypatch):
    gone = internals.Internal(internals.GROUP, "WorkerBand", "a start", "it is a base")
    monkeypatch.setattr(internals, "INTERNALS", (gone,))
    with pytest.raises(RunError, match="WorkerBand is gone in ray"):
        from ganrun.ray_backend.internals import WorkerBand  # noqa: F401
    with pytest.raises(ImportError, match="cannot import name 'Misspelt'"):
        from ganrun.ray_backend.internals import Misspelt  # noqa: F401


@pytest.mark.parametrize(("ours", "name", "base"), overrides(), ids=lambda each: getattr(each, "__name__", each))
def test_an_override_takes_what_ray_passes(ours, name, base):
    if name == "__init__":
        return  # We call it ourselves.
    given = [each.name for each in inspect.signature(vars(base)[name]).parameters.values() if each.kind not in VARIADIC]
    inspect.signature(vars(ours)[name]).bind(*given)
    if "_internal" in base.__module__ or re.match("_[a-z]", name):
        assert name in {internal.name for internal in INTERNALS}, f"{ours}.{name}: list it in internals.py"


def test_the_overrides_are_found():
    found = {name for _, name, _ in overrides()}
    assert {"_start", "_count_possible_workers", "make_decision", "on_trial_result"} <= found


def test_every_listed_name_is_used():
    words = set(re.findall(r"\w+", "\n".join(WITH_RAY.values())))
    assert [each.path for each in INTERNALS if not {each.name, *(each.parameters or [])} & words] == []


@pytest.mark.parametrize("name", OTHERS)
def test_no_other_module_names_a_private_part_of_ray(name):
    tree = ast.parse(OTHERS[name])
    private = [other for other in imported(tree) if is_private(other)]
    if name in WITH_RAY:
        private += [ast.unparse(node) for node in ast.walk(tree) if is_private_attribute(node)]
    private += [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and re.fullmatch(r"(RAY|TUNE)_\w+", str(node.value))
        and node.value not in DOCUMENTED
    ]
    assert private == [], f"{name}: move it to ray_backend/internals.py, with a reason"


def is_private(module: str) -> bool:
    parts = module.split(".")
    private = [part for part in parts if part.startswith("_")] or parts[1:3] in (["train", "v2"], ["tune", "execution"])
    return parts[0] == "ray" and bool(private)


def is_private_attribute(node: ast.AST) -> bool:
    """`other._name`, where other is not the object itself; the methods of a NamedTuple are public."""
    public = {"_asdict", "_fields", "_replace"}
    is_private = isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr) and node.attr not in public
    return bool(is_private) and ast.unparse(node.value) not in ("self", "cls", "super()")
