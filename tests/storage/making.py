"""Helpers of the S3 tests: clients by endpoint, requests that must fail, policies that lack a right."""

import pytest

from ganrun.storage import s3_client
from tests.s3 import BUCKET

CLIENTS: dict[str, dict[int, object]] = {}
"""Clients by endpoint. A client reads the environment when it is made; making one is slow, so tests share them."""
RIGHTS = {"write to": "PutObject", "read from": "GetObject", "list": "ListBucket", "delete in": "DeleteObject"}
"""Action of S3 by the word of `check_rights`."""


def use(monkeypatch, clients):
    """Make storages use these clients, with no outage recorded."""
    monkeypatch.setattr(s3_client, "_filesystems", clients)
    monkeypatch.setattr(s3_client, "_watches", {})


def fails(action, *arguments):
    """Return the OSError of a request that must fail: its message is one line, its filename the URI."""
    with pytest.raises(OSError) as caught:
        action(*arguments)
    assert str(caught.value.filename).startswith("s3://")
    assert caught.value.strerror
    assert "\n" not in caught.value.strerror
    return caught.value


def policy_without(missing):
    """Return the policy of a user who lacks these rights, and has all others that ganrun needs."""
    actions = [f"s3:{action}" for right, action in RIGHTS.items() if right not in missing]
    resources = [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": resources}]}
