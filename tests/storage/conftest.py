"""Fixtures of the S3 tests: a real server, and a proxy in front of it that injects faults."""

import os

import pytest

from ganrun.storage import retry, s3_client
from tests.storage.making import CLIENTS, use
from tests.storage.proxy import proxied


@pytest.fixture
def client_of_the_server(s3, monkeypatch):
    """Use the shared client of the real server, with a short backoff."""
    use(monkeypatch, CLIENTS.setdefault(os.environ["AWS_ENDPOINT_URL"], {}))
    monkeypatch.setattr(retry, "LONGEST_WAIT_SECONDS", 0.2)


@pytest.fixture(scope="module")
def the_proxy(s3_server):
    """One proxy in front of the server for a whole module."""
    with proxied(s3_server.ports["s3"]) as proxy:
        yield proxy


@pytest.fixture
def proxy(client_of_the_server, the_proxy, monkeypatch):
    """Send the requests of the test through the proxy, which injects its `faults`."""
    the_proxy.faults, the_proxy.seen, the_proxy.on_request = [], [], lambda request: None
    monkeypatch.setenv("AWS_ENDPOINT_URL", the_proxy.url)
    use(monkeypatch, CLIENTS.setdefault(the_proxy.url, {}))
    return the_proxy


@pytest.fixture
def own_client(proxy, monkeypatch):
    """Use a new client, which reads the environment that the test sets."""
    use(monkeypatch, {})


@pytest.fixture
def impatient(own_client, monkeypatch):
    """Use a read timeout of 1 s. A busy machine may exceed it by itself, so there may be more faults than ordered."""
    monkeypatch.setattr(s3_client, "SILENT_SECONDS", 1.0)
