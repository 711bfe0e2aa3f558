"""`import ganrun` is quick, and `ganrun.train` is module and function, in whatever order they are imported."""

import ast
import subprocess
import sys

import pytest

import ganrun
from tests.recorded import ROOT
from tests.waiting import WAIT

ORDERS = (
    "import ganrun; function = ganrun.train; import ganrun.train; from ganrun.train import main",
    "import ganrun.train; function = ganrun.train; from ganrun.train import main",
    "from ganrun.train import main; from ganrun import train as function",
    "from ganrun import train as function; import ganrun.train; main = ganrun.train.main",
)


def said(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_loads_nothing_heavy():
    found = said(
        "import ganrun, sys; print(*sorted({'torch', 'numpy', 'ray', 'pydantic', 'yaml'} & sys.modules.keys()))"
    )
    assert found.strip() == ""


@pytest.mark.parametrize("order", ORDERS)
def test_train_is_module_and_function_in_any_order(order):
    code = f"{order}\ntry: function('no-such')\nexcept ValueError as error: print(error)\n"
    code += "print(main(['quickstart', '--dry-run']), callable(function), main is function.main)\nimport inspect\n"
    code += "print(*inspect.signature(function).parameters)"
    first, *_, last, parameters = said(code).splitlines()
    assert first.startswith("no-such: no such config file")
    assert (last, parameters) == ("0 True True", "config wait overrides")


def test_tune_is_module_and_function_too():
    code = "import ganrun\nfrom ganrun.tune import main\n"
    code += "try: ganrun.tune('quickstart')\nexcept ValueError as error: print(error)"
    assert said(code).startswith("quickstart: tune: missing")


def test_names_are_those_of_the_stub():
    stub = ast.parse((ROOT / "ganrun/__init__.pyi").read_text())
    names = {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names | {"__version__"} == set(ganrun.__all__)
    assert all(getattr(ganrun, name) for name in ganrun.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        ganrun.lod  # noqa: B018
