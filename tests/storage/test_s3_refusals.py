"""Requests that S3 refuses are not retried, and the message says why."""

import datetime
import json
import time

import pytest

from ganrun.errors import UserError
from ganrun.storage import check_rights, open_storage, s3_client, s3_errors
from tests.s3 import CREDENTIALS
from tests.storage.making import RIGHTS, fails, policy_without
from tests.waiting import until

EMPTY = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3")
EMPTY += ("AWS_SESSION_TOKEN", "AWS_CA_BUNDLE", "AWS_MAX_ATTEMPTS", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")
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


@pytest.mark.parametrize("name", ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"])
def test_a_profile_that_is_not_there(s3, proxy, nobody, monkeypatch, name):
    monkeypatch.setenv(name, "elsewhere")
    with pytest.raises(UserError, match=f"^{name}: no profile 'elsewhere' in ~/.aws/config"):
        open_storage(s3).read("x")
    assert not proxy.seen


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_a_malformed_region(s3, proxy, own_client, monkeypatch, name):
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.setenv(name, "us east 1")
    with pytest.raises(UserError, match=f"^{name}: 'us east 1' is no region"):
        open_storage(s3).read("x")
    assert not proxy.seen


def test_variables_that_are_set_but_empty_count_as_unset(s3, proxy, own_client, monkeypatch):
    for name in EMPTY:
        monkeypatch.setenv(name, "")
    place = open_storage(s3)
    place.write("x", b"there")
    assert place.read("x") == b"there"


def test_empty_credentials_are_none(s3, proxy, nobody, monkeypatch):
    for name in CREDENTIALS:
        monkeypatch.setenv(name, "")
    assert "no credentials; set AWS_ACCESS_KEY_ID" in fails(open_storage(s3).read, "x").strerror


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


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
@pytest.mark.parametrize("url", ["localhost:9000", "http://", "ftp://host", "http://host:port", "http://host:99999"])
def test_an_endpoint_that_is_no_url(s3, monkeypatch, name, url):
    monkeypatch.setenv(name, url)
    with pytest.raises(UserError, match=f"^{name}: '{url}' is neither http://HOST:PORT nor https://HOST:PORT"):
        open_storage(s3)


def test_certificates_that_are_not_there(s3, monkeypatch):
    monkeypatch.setenv("AWS_CA_BUNDLE", "/gone.pem")
    open_storage(s3)  # Its endpoint has no certificate.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://127.0.0.1:1")
    with pytest.raises(UserError, match=r"^AWS_CA_BUNDLE: '/gone\.pem' does not exist"):
        open_storage(s3)


# A public bucket.


@pytest.fixture(scope="module")
def public_bucket(s3_server):
    """URI of a bucket that anybody may read and list, with one object in it."""
    client, bucket = s3_server.client(), f"public-{time.monotonic_ns()}"
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    statement = {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject", "s3:ListBucket"]}
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="data/x", Body=b"for all")
    policy = {"Version": "2012-10-17", "Statement": [statement | {"Resource": resources}]}
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    return f"s3://{bucket}/data"


@pytest.mark.parametrize("value", ["true", "YES", "1"])
def test_a_public_bucket_is_read_without_credentials(public_bucket, s3, proxy, nobody, monkeypatch, value):
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", value)
    place = open_storage(public_bucket)
    until(lambda: succeeds(place.read, "x"))  # The server takes note of a policy a moment later.
    assert place.read("x") == b"for all"
    assert place.list() == ["x"]
    assert fails(place.write, "y", b"").strerror == (
        "access denied (AccessDenied); AWS_NO_SIGN_REQUEST is set, so no credentials were sent"
    )
    assert isinstance(fails(open_storage(s3).read, "x"), PermissionError)  # The other bucket is not public.


def succeeds(action, *arguments):
    try:
        action(*arguments)
    except PermissionError:
        return False
    return True


@pytest.mark.parametrize("value", ["", "false", "No", "0"])
def test_requests_are_signed_by_default(s3, proxy, own_client, monkeypatch, value):
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", value)
    open_storage(s3).write("x", b"ours")


def test_unsigned_is_yes_or_no(s3, monkeypatch):
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "maybe")
    with pytest.raises(UserError, match=r"^AWS_NO_SIGN_REQUEST: 'maybe' is neither true nor false"):
        open_storage(s3)


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
