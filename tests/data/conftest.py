"""Fixtures of the tests of fetching."""

import pytest

from ganrun.data.cache import ShardCache
from ganrun.data.fetch import Fetcher
from tests.data.wire import behind_wire


@pytest.fixture
def wired(data_folder):
    """The small data set behind a wire; and the wire."""
    return behind_wire(data_folder)


@pytest.fixture
def fetcher_of(request):
    def make(data, cache=None):
        fetcher = Fetcher(data, cache)
        request.addfinalizer(fetcher.close)
        return fetcher

    return make


@pytest.fixture
def cache(tmp_path):
    return ShardCache(tmp_path / "cache", 10**8)
