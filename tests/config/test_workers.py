"""`cluster.workers`: a number or a range; `cluster.env`."""

import pytest

from ganrun.config.load import load_config, parse
from ganrun.config.validate_cluster import environment_faults
from tests.config.test_load import faults_of, file
from tests.conftest import config_of

__all__ = ["file"]


@pytest.mark.parametrize(("written", "fewest", "most"), [("3", 3, 3), ("[1,3]", 1, 3), ("[2,2]", 2, 2), ("3.0", 3, 3)])
def test_workers_are_a_number_or_a_range(file, written, fewest, most):
    cluster = load_config(file, [f"cluster.workers={written}"]).cluster
    assert (cluster.fewest_workers, cluster.most_workers) == (fewest, most)


@pytest.mark.parametrize("written", ["0", "[0,2]", "[3,1]", "[1,2,3]", "[]", "[1,x]", "true", "1.5", "x"])
def test_other_workers_are_one_fault(file, written):
    (fault,) = faults_of(file, f"cluster.workers={written}")
    assert fault.startswith("cluster.workers: ")
    assert fault.endswith("it should be: a whole number from 1, or [fewest, most]")


def test_trials_of_a_search_have_one_number_of_workers(file):
    tune = ["tune.perturb_every_images=120", "tune.method=seeds", "tune.mutations={}", "evaluate.every_images=120"]
    (fault,) = faults_of(file, *tune, "train.total_images=240", "cluster.workers=[1,3]")
    assert fault.startswith("cluster.workers: [1, 3], but trials")


def test_the_most_workers_are_bounded_by_the_slots_and_set_them(file):
    (fault,) = faults_of(file, "cluster.workers=[1,7]", "data.slots=6")
    assert "cluster.workers: 7 is more than data.slots: 6" in fault
    config = load_config(file, ["cluster.workers=[1,4]", "data.slots=null"])
    assert config.slots == 4
    assert parse(config.to_yaml().encode(), "x").cluster == config.cluster


def test_variables_of_workers_are_text_and_of_known_libraries(values):
    given = {"NCCL_DEBUG": "INFO", "NCCL_IB_DISABLE": True, "FI_PROVIDER": "efa", "OMP_NUM_THREADS": 4}
    assert config_of(values, cluster__env=given).cluster.env == {
        "NCCL_DEBUG": "INFO",
        "NCCL_IB_DISABLE": "1",
        "FI_PROVIDER": "efa",
        "OMP_NUM_THREADS": "4",
    }
    config = config_of(values, cluster__env={"NCCL_TOKEN": "x", "PATH": "/", "NCCL_X=1": "2"})
    secret, *others = [message for _, message in environment_faults(config)]
    assert secret.startswith("cluster.env.NCCL_TOKEN: the name of a secret, which must not stand in a config")
    assert [message.partition(": not a variable of NCCL, ")[0] for message in others] == [
        "cluster.env.PATH",
        "cluster.env.NCCL_X=1",
    ]
