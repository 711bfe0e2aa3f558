"""Shards in the cache are not fetched again, and only verified ones get there."""

import pytest

from ganrun.data.index import open_data
from ganrun.errors import UserError
from tests.conftest import SIZES
from tests.data.wire import name
from tests.waiting import WAIT


def test_what_is_cached_is_not_fetched(wired, fetcher_of, cache):
    data, wire = wired
    fetcher_of(data, cache).request(0).result(WAIT)
    again = fetcher_of(data, cache)
    assert len(again.request(0).result(WAIT).samples) == SIZES[0]
    assert wire.reads == [name(0)]
    assert again.bytes_fetched == 0


def test_what_is_corrupt_in_the_cache_is_fetched_again_and_replaced(wired, fetcher_of, cache):
    data, wire = wired
    fetcher_of(data, cache).request(0).result(WAIT)
    path = cache.folder / data.index.shards[0].sha256
    whole = path.read_bytes()
    for bad in (whole[:-1], b"", b"x" * len(whole)):
        path.write_bytes(bad)
        assert len(fetcher_of(data, cache).request(0).result(WAIT).samples) == SIZES[0]
        assert path.read_bytes() == whole
    assert wire.reads == [name(0)] * 4


def test_what_is_corrupt_in_storage_never_comes_into_the_cache(wired, fetcher_of, cache):
    data, wire = wired
    wire.corrupt = {name(0): 9}
    with pytest.raises(UserError):
        fetcher_of(data, cache).request(0).result(WAIT)
    assert cache.get(data.index.shards[0].sha256) is None


def test_files_of_this_machine_are_not_copied_into_the_cache(data_folder, fetcher_of, cache):
    fetcher_of(open_data(str(data_folder)), cache).request(0).result(WAIT)
    assert not cache.folder.exists()
