"""Requests that S3 refuses are not retried, and the message says why."""

import datetime
import time

import pytest

from ganrun.errors import UserError
from ganrun.storage import check_rights, open_storage, s3_client, s3_errors
from tests.s3 import CREDENTIALS
from tests.storage.making import RIGHTS, fails, policy_without

pytestmark = pytest.mark.usefixtures("client_of_the_server")


def refused_once(place, proxy):
    """Return the error of a read that must fail without a retry."""
    proxy.seen = []
    error = fails(place.read, "x")
    assert len(proxy.seen) == 1
    assert not place.traffic.faults
    return error


def test_a_wrong_secret(s3, proxy, own_client, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    error = refused_once(open_storage(s3), proxy)
    assert isinstance(error, PermissionError)
    assert (
        error.strerror == "wrong credentials (SignatureDoesNotMatch); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )


def test_an_unknown_key(s3, proxy, own_client, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODY")
    assert "wrong credentials (InvalidAccessKeyId)" in refused_once(open_storage(s3), proxy).strerror


@pytest.fixture
def nobody(own_client, monkeypatch, tmp_path):
    """No credentials in environment, files or machine."""
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_no_credentials(s3, proxy, nobody, monkeypatch):
    place = open_storage(s3)
    assert "no credentials; set AWS_ACCESS_KEY_ID" in fails(place.read, "x").strerror
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "HALF")
    monkeypatch.setattr(s3_client, "_filesystems", {})
    assert "no credentials; set AWS_ACCESS_KEY_ID" in fails(place.read, "x").strerror
    assert not proxy.seen


def test_a_profile_that_is_not_there(s3, proxy, nobody, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "elsewhere")
    assert "(The config profile (elsewhere) could not be found)" in fails(open_storage(s3).read, "x").strerror


@pytest.mark.parametrize("minutes", [-20, 20])
def test_a_clock_that_is_off(s3, proxy, monkeypatch, minutes):
    """The local clock is off; the real server refuses the request."""
    import botocore.auth
    import botocore.compat

    def now(remove_tzinfo=True):
        there = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
        return there.replace(tzinfo=None) if remove_tzinfo else there

    monkeypatch.setattr(botocore.auth, "get_current_datetime", now)
    monkeypatch.setattr(s3_errors, "time", lambda: time.time() + 60 * minutes)
    error = refused_once(open_storage(s3), proxy)
    assert isinstance(error, PermissionError)
    assert error.strerror == "the clock of this machine differs by 20 min from the server's; set it right"


def test_a_bucket_that_is_not_there(s3, proxy):
    place = open_storage("s3://nowhere/runs")
    error = refused_once(place, proxy)
    assert not isinstance(error, FileNotFoundError)
    assert (error.filename, error.strerror) == ("s3://nowhere/runs/x", "no such bucket: 'nowhere'")
    for action in (place.list, lambda: place.write("x", b""), lambda: place.create("x", b""), place.objects):
        assert "no such bucket" in fails(action).strerror
    with pytest.raises(UserError, match=r"run\.storage: cannot write to s3://nowhere/runs \(no such bucket"):
        check_rights(place, "run.storage")


def test_an_object_that_is_not_there(s3, proxy):
    error = refused_once(open_storage(s3), proxy)
    assert isinstance(error, FileNotFoundError)
    assert (error.filename, error.strerror) == (f"{s3}/x", "no such object")


@pytest.mark.parametrize("bucket", ["no_Bucket!", "a"])
def test_no_bucket_could_have_this_name(bucket):
    assert fails(open_storage(f"s3://{bucket}/runs", patience_seconds=0.5).read, "x").errno


@pytest.mark.parametrize("url", ["localhost:9000", "http://"])
def test_an_endpoint_that_is_no_url(s3, own_client, monkeypatch, url):
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    assert "AWS" in fails(open_storage(s3, patience_seconds=0.5).read, "x").strerror


@pytest.mark.parametrize("missing", [*([right] for right in RIGHTS), ["write to", "delete in"], []], ids=str)
def test_each_right_that_is_missing_is_named(s3, s3_server, own_client, monkeypatch, missing):
    for name, value in s3_server.user(policy_without(missing)).items():
        monkeypatch.setenv(name, value)
    place = open_storage(s3)
    if missing == ["list"]:
        missing = ["list", "delete in"]  # What is deleted with all below it is listed first.
    if missing:
        with pytest.raises(UserError) as caught:
            check_rights(place, "run.storage")
        assert str(caught.value).startswith(
            f"run.storage: cannot {', '.join(missing)} {s3} (access denied (AccessDenied"
        )
    else:
        check_rights(place, "run.storage")
    assert not place.traffic.faults
