"""One S3 client a process, for all its threads, in an event loop of its own thread.

Endpoint, credentials and region come from the usual AWS variables, files and roles; none is ever an argument, so
that none can be pickled or printed.
"""

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from ganrun.storage.retry import Watch

CONNECT_SECONDS, SILENT_SECONDS = 5, 30
SLOWEST = 64 * 1024
"""Bytes a second; a transfer that is slower over its whole length counts as not answered."""
T = TypeVar("T")
_lock = threading.Lock()
_filesystems: dict[int, Any] = {}
_watches: dict[str, Watch] = {}


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, done in the loop; what interrupts the wait (Ctrl-C) ends the work too."""
    future = asyncio.run_coroutine_threadsafe(work, filesystem().loop)
    try:
        return future.result()
    finally:
        future.cancel()


async def client() -> Any:
    """The botocore client, whose methods are coroutines."""
    return await filesystem().set_session()


async def within(work: Coroutine[Any, Any, T], size: int) -> T:
    """Ends a transfer of `size` bytes that trickles; the connection is closed, not given back.

    Raises:
        TimeoutError: it was ended.
    """
    return await asyncio.wait_for(work, SILENT_SECONDS + size / SLOWEST)


def filesystem() -> Any:
    """The s3fs file system of this process: one made before a fork does not work after it (s3fs#914)."""
    with _lock:
        if os.getpid() not in _filesystems:
            from s3fs import S3FileSystem

            config = {
                "retries": {"total_max_attempts": 1},  # We ask again ourselves, for as long as we were told.
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": SILENT_SECONDS,
                "max_pool_connections": 32,
                # Ours are stronger: what is read is held against the sha256 of an index or a manifest.
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            }
            # botocore itself reads AWS_DEFAULT_REGION alone.
            region = {"region_name": os.environ["AWS_REGION"]} if "AWS_REGION" in os.environ else {}
            _filesystems[os.getpid()] = S3FileSystem(
                config_kwargs=config, client_kwargs=region, use_listings_cache=False, skip_instance_cache=True
            )
        return _filesystems[os.getpid()]


def endpoint() -> str:
    """Where requests go, for messages."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "S3"


def watch(bucket: str) -> Watch:
    """Whether the server of this bucket answers."""
    with _lock:
        return _watches.setdefault(bucket, Watch(f"s3://{bucket} at {endpoint()}"))


def _begin_child() -> None:
    """After a fork: another thread may have held a lock, which nobody would free here."""
    global _lock
    _lock = threading.Lock()
    _watches.clear()


os.register_at_fork(after_in_child=_begin_child)
