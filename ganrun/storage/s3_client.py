"""One S3 client per process, shared by all threads. It runs in an event loop in a thread of its own.

Endpoint, credentials and region come from the standard AWS variables, files and roles. None is ever an argument, so
none can be pickled or logged. A variable that is set but empty counts as unset.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ganrun.errors import UserError
from ganrun.storage.retry import Watch

CONNECT_SECONDS, SILENT_SECONDS = 5, 30
"""Timeouts of connecting and of reading."""
SLOWEST = 64 * 1024
"""Minimum rate in bytes/s. A transfer that is slower on average times out."""
YES, NO = ("true", "yes", "1"), ("false", "no", "0", "")
T = TypeVar("T")
_lock = threading.Lock()
_filesystems: dict[int, Any] = {}
_watches: dict[str, Watch] = {}


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the event loop and return its result. An interrupt (Ctrl-C) cancels it."""
    future = asyncio.run_coroutine_threadsafe(work, filesystem().loop)
    try:
        return future.result()
    finally:
        future.cancel()


async def client() -> Any:
    """Return the aiobotocore client. Its methods are coroutines."""
    return await filesystem().set_session()


async def within(work: Coroutine[Any, Any, T], size: int) -> T:
    """Await a transfer of `size` bytes with a timeout. A timed-out connection is closed, not returned to the pool.

    Raises:
        TimeoutError: the transfer took longer than 30 s + size / 64 KiB/s.
    """
    return await asyncio.wait_for(work, SILENT_SECONDS + size / SLOWEST)


def filesystem() -> Any:
    """Return the s3fs file system of this process. One made before a fork does not work after it (s3fs#914)."""
    with _lock:
        if os.getpid() not in _filesystems:
            from s3fs import S3FileSystem

            config = {
                "retries": {"total_max_attempts": 1},  # No retries in botocore: `retry.persist` has its own budget.
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": SILENT_SECONDS,
                "max_pool_connections": 32,
                # Redundant: everything read is checked against the SHA-256 in an index or a manifest.
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            }
            for name in [each for each, value in os.environ.items() if each.startswith("AWS_") and not value]:
                del os.environ[name]  # botocore would take an empty profile, region or endpoint for one.
            # botocore reads AWS_DEFAULT_REGION only.
            region = {"region_name": os.environ["AWS_REGION"]} if "AWS_REGION" in os.environ else {}
            _filesystems[os.getpid()] = S3FileSystem(
                anon=anonymous(),
                config_kwargs=config,
                client_kwargs=region,
                use_listings_cache=False,
                skip_instance_cache=True,
            )
        return _filesystems[os.getpid()]


def endpoint() -> str:
    """Return the endpoint of requests, for messages."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "S3"


def anonymous() -> bool:
    """Return True if AWS_NO_SIGN_REQUEST asks for requests without credentials, as public buckets take.

    Raises:
        UserError: it is neither true nor false.
    """
    value = os.environ.get("AWS_NO_SIGN_REQUEST", "")
    if value.lower() not in YES + NO:
        raise UserError(f"AWS_NO_SIGN_REQUEST: {value!r} is neither true nor false")
    return value.lower() in YES


def check_variables() -> None:
    """Check the AWS variables that can be checked without a request.

    Raises:
        UserError: one of them is malformed; the message names it.
    """
    anonymous()
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if (url := os.environ.get(name)) and not _is_url(url):
            raise UserError(f"{name}: {url!r} is neither http://HOST:PORT nor https://HOST:PORT")
    bundle = os.environ.get("AWS_CA_BUNDLE")
    if bundle and not os.path.exists(bundle) and not endpoint().startswith("http://"):
        raise UserError(f"AWS_CA_BUNDLE: {bundle!r} does not exist; set it to a file of certificates, or unset it")


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def watch(bucket: str) -> Watch:
    """Return the outage tracker of a bucket, shared by all threads."""
    with _lock:
        return _watches.setdefault(bucket, Watch(f"s3://{bucket} at {endpoint()}"))


def _begin_child() -> None:
    """Replace the lock after a fork: another thread may have held it, and does not exist in the child."""
    global _lock
    _lock = threading.Lock()
    _watches.clear()


os.register_at_fork(after_in_child=_begin_child)
