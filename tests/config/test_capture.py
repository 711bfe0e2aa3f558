"""`train.capture` is a word, and needs a GPU where it is on."""

import pytest
import yaml

from ganrun.config.load import load_config
from ganrun.config.schema import Config
from ganrun.errors import UserError
from tests.conftest import write_yaml


@pytest.mark.parametrize(("written", "found"), [("on", "on"), ("off", "off"), ("auto", "auto"), ("'off'", "off")])
def test_capture_is_a_word_though_yaml_reads_booleans(values, tmp_path, written, found):
    path = write_yaml(tmp_path / "config.yaml", values)
    config = load_config(path, [f"train.capture={written}", "cluster.gpus_per_worker=1"])
    assert config.train.capture == found
    assert Config.model_validate(yaml.safe_load(config.to_yaml())).train.capture == found


def test_capture_needs_a_gpu(values, tmp_path):
    with pytest.raises(UserError, match=r"train.capture: on needs a GPU, but cluster.gpus_per_worker is 0; .* auto"):
        load_config(write_yaml(tmp_path / "config.yaml", values), ["train.capture=on"])
