"""A place that does not exist is one line and exit code 2, whichever argument or key names it."""

import os
from importlib import import_module

import pytest

from tests.conftest import write_yaml

NOBODY = "~no-such-user/x"


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Run `ganrun VERB`; return exit code and stderr. Nothing may be written to the current folder."""
    monkeypatch.chdir(tmp_path)

    def call(verb, *arguments):
        before = set(os.listdir(tmp_path))
        try:
            code = import_module(f"ganrun.{verb}").main([str(each) for each in arguments])
        except SystemExit as error:  # argparse
            code = error.code
        assert set(os.listdir(tmp_path)) == before
        return code, capsys.readouterr().err

    return call


def assert_one_line(code, error, reason):
    assert code == 2, error
    assert reason in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        *(("runs", verb, NOBODY) for verb in ("list", "show", "curve", "gc")),
        ("runs", "delete", NOBODY, "--yes"),
        ("runs", "curve", "{run}", "--plot", f"{NOBODY}.png"),
        ("train", NOBODY),
        ("tune", NOBODY),
        ("bench", "data", NOBODY),
        ("evaluate", NOBODY),
        ("evaluate", "--images", NOBODY, "--data", "package:fashion-mnist-10k"),
        ("evaluate", "--images", "{run}", "--data", NOBODY),
        ("sample", NOBODY, "--out", "x.png"),
        ("sample", "{run}", "--out", f"{NOBODY}.png"),
        ("export", NOBODY, "--out", "x.safetensors"),
        ("export", "{run}", "--out", f"{NOBODY}.safetensors"),
        *(("prepare", f"{kind}:{NOBODY}", "out") for kind in ("folder", "cifar10", "celeba", "stacked", "shards")),
        ("prepare", f"fashion-mnist:{NOBODY}", "out"),
        ("prepare", f"shards:file://{NOBODY}"),
        ("prepare", "gaussians:8", NOBODY),
        ("prepare", "folder:{run}", "out", "--fields", f"{NOBODY}.csv"),
    ],
    ids=" ".join,
)
def test_the_home_of_a_user_that_does_not_exist(call, tmp_path, values, arguments):
    from ganrun.run_folder.run_config import write_config
    from ganrun.run_folder.run_folder import RunFolder
    from ganrun.storage import Folder
    from tests.conftest import config_of

    config = config_of(values, run__name="run", run__storage=str(tmp_path))
    write_config(config, RunFolder(Folder(tmp_path / "run")))
    code, error = call(*(each.format(run=tmp_path / "run") for each in arguments))
    assert_one_line(code, error, "this machine has no user 'no-such-user'; write the whole path, or ./~no-such-user")


@pytest.mark.parametrize(
    "key", ["run.storage", "run.start_from", "data.shards", "evaluate.extractor", "evaluate.extractor_weights"]
)
def test_the_key_that_names_such_a_home_is_told(call, tmp_path, values, key):
    yaml = write_yaml(tmp_path / "small.yaml", values)
    place = f"{NOBODY}.pt" if key == "evaluate.extractor" else NOBODY
    for verb, extra in (("train", "--validate"), ("train", "train.total_images=12")):
        code, error = call(verb, yaml, f"{key}={place}", extra)
        assert_one_line(code, error, f"{key}: {place}: this machine has no user 'no-such-user'")


@pytest.mark.parametrize("verb", ["list", "show", "curve", "delete", "gc"])
def test_a_bucket_that_does_not_exist(call, s3, verb):
    code, error = call("runs", verb, "s3://no-such-bucket/runs")
    assert_one_line(code, error, "no such bucket: 'no-such-bucket'")


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "s3://no-such-bucket/a"),
        ("sample", "s3://no-such-bucket/a", "--out", "x.png"),
        ("export", "s3://no-such-bucket/a", "--out", "x.safetensors"),
        ("train", "s3://no-such-bucket/a.yaml"),
        ("tune", "s3://no-such-bucket/a.yaml"),
        ("prepare", "shards:s3://no-such-bucket/a"),
        ("prepare", "folder:s3://no-such-bucket/a", "out"),
        ("prepare", "gaussians:8", "s3://no-such-bucket/a"),
    ],
    ids=" ".join,
)
def test_a_bucket_that_does_not_exist_for_other_commands(call, s3, arguments):
    code, error = call(*arguments)
    assert_one_line(code, error, "no such bucket: 'no-such-bucket'")
