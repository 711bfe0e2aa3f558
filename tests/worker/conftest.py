"""The writers of rank 0 over a storage that can be held back or fail."""

import pytest

from ganrun.worker import checkpoint_writer, line_writer
from tests.worker.writing import Gated, Written, quiet_lines


@pytest.fixture
def storage(tmp_path):
    return Gated(tmp_path / "run")


@pytest.fixture
def lines(storage):
    """Lines that write when told to, or when one is urgent."""
    made = quiet_lines(storage)
    yield made
    made.close()


@pytest.fixture
def written(storage, lines, monkeypatch):
    """A checkpoint writer over the storage, which soon tries again."""
    for module in (checkpoint_writer, line_writer):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    return Written(storage, lines)
