"""A prefix in a bucket of S3, or of a server that speaks its language.

Endpoint, credentials and region come from the usual AWS variables, files and roles; none is ever an argument, so
that none can be pickled or printed. One file system object a process serves all its threads.
"""

import asyncio
import errno
import mimetypes
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, TypeVar

from ganrun.storage.place import Entry
from ganrun.storage.retry import PATIENCE_SECONDS, Traffic, TransientError, Watch, persist

CONNECT_SECONDS, SILENT_SECONDS = 5, 30
SLOWEST = 64 * 1024
"""Bytes a second; a transfer that is slower over its whole length counts as not answered."""
PART = 16 * 2**20
"""Larger objects are written in parts of so many bytes, PARTS at a time."""
PARTS = 4
DELETED_AT_ONCE = 1_000
PASSING = {"InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout", "OperationAborted"}
PASSING |= {"ConditionalRequestConflict", "Throttling", "TooManyRequests", "IncompleteBody", "BadDigest"}
T = TypeVar("T")
_lock = threading.Lock()
_filesystems: dict[int, Any] = {}
_watches: dict[str, Watch] = {}


class S3:
    """Objects below `s3://bucket/prefix`.

    Args:
        uri: of the prefix.
        patience_seconds: so long a request that fails in a way that may pass is made again.
    """

    def __init__(self, uri: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self.uri, self.patience_seconds = uri.rstrip("/"), patience_seconds
        self.bucket, _, self._prefix = self.uri.removeprefix("s3://").partition("/")
        self.traffic = Traffic()
        self._ahead: float | None = None
        """The server's clock less ours, in seconds."""
        self._appended: dict[str, bytearray] = {}

    def read(self, name: str) -> bytes:
        return self._get(name)[0]

    def read_version(self, name: str) -> tuple[bytes, str] | None:
        try:
            return self._get(name)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        async def put() -> None:
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            await filesystem()._pipe_file(
                f"{self.bucket}/{self._key(name)}", data, chunksize=PART, max_concurrency=PARTS, ContentType=kind
            )

        self._ask(name, lambda: _within(put(), len(data)))
        self.traffic.bytes_written += len(data)

    def append(self, name: str, data: bytes) -> None:
        # Rewritten whole: an object has no end to add to.
        if name not in self._appended:
            found = self.read_version(name)
            self._appended[name] = bytearray(found[0] if found else b"")
        self._appended[name] += data
        self.write(name, bytes(self._appended[name]))

    def create(self, name: str, data: bytes) -> bool:
        return self._put_if(name, data, IfNoneMatch="*")

    def replace(self, name: str, data: bytes, version: str) -> bool:
        return self._put_if(name, data, IfMatch=version)

    def list(self, name: str = "") -> list[str]:
        below = self._key(f"{name}/" if name else "")
        found = set()
        for page in self._pages(below, Delimiter="/"):
            found |= {entry["Prefix"] for entry in page.get("CommonPrefixes", ())}
            found |= {entry["Key"] for entry in page.get("Contents", ())}
        names = sorted(key.removeprefix(below).rstrip("/") for key in found)
        return [each for each in names if each and not each.startswith(".")]

    def objects(self) -> dict[str, Entry]:
        below = self._key("")
        return {
            entry["Key"].removeprefix(below): Entry(entry["Size"], entry["LastModified"].timestamp())
            for page in self._pages(below)
            for entry in page.get("Contents", ())
        }

    def delete(self, name: str) -> None:
        self._call("delete_object", name, Key=self._key(name))
        below = self._key(f"{name}/")
        keys = [entry["Key"] for page in self._pages(below) for entry in page.get("Contents", ())]
        # Some servers keep folders as things of their own, which go only when they are empty: deepest first.
        folders = {key[: end + 1] for key in keys for end in range(len(below) - 1, len(key)) if key[end] == "/"}
        keys = [key for key in keys if key not in folders] + sorted(folders, key=len, reverse=True)
        for start in range(0, len(keys), DELETED_AT_ONCE):
            listed = [{"Key": key} for key in keys[start : start + DELETED_AT_ONCE]]
            answer = self._call("delete_objects", name, Delete={"Objects": listed, "Quiet": True})
            if refused := answer.get("Errors"):
                where = f"s3://{self.bucket}/{refused[0]['Key']}"
                raise PermissionError(errno.EACCES, f"not allowed to delete it ({refused[0]['Code']})", where)

    def now(self) -> float:
        if self._ahead is None:
            self._call("list_objects_v2", "", Prefix=self._key(""), MaxKeys=1)
        return time() + (self._ahead or 0.0)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _get(self, name: str) -> tuple[bytes, str]:
        async def get() -> tuple[bytes, str]:
            response = await filesystem()._call_s3("get_object", Bucket=self.bucket, Key=self._key(name))
            self._hear_clock(response)
            async with response["Body"] as body:
                data: bytes = await _within(body.read(), response["ContentLength"])
            if len(data) != response["ContentLength"]:
                raise TransientError("cut", f"{len(data)} of {response['ContentLength']} bytes came")
            return data, response["ETag"]

        data, version = self._ask(name, get)
        self.traffic.bytes_read += len(data)
        return data, version

    def _put_if(self, name: str, data: bytes, **condition: str) -> bool:
        faults = self.traffic.faults.total()
        try:
            self._call("put_object", name, Key=self._key(name), Body=data, **condition)
        except (FileExistsError, FileNotFoundError):
            if self.traffic.faults.total() == faults:
                return False
            # Ours may have arrived, and only the answer to it been lost.
            found = self.read_version(name)
            return bool(found and found[0] == data)
        self.traffic.bytes_written += len(data)
        return True

    def _pages(self, prefix: str, **options: Any) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", "", Prefix=prefix, **token, **options)
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _call(self, method: str, name: str, **arguments: Any) -> dict[str, Any]:
        async def call() -> dict[str, Any]:
            response: dict[str, Any] = await filesystem()._call_s3(method, Bucket=self.bucket, **arguments)
            self._hear_clock(response)
            return response

        return self._ask(name, lambda: _within(call(), len(arguments.get("Body", b""))))

    def _ask(self, name: str, coroutine: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Runs a request in the file system's own thread, again and again if need be.

        Raises:
            OSError: with a line that says what is wrong, and the object's address.
        """
        from fsspec.asyn import sync

        where = f"{self.uri}/{name}" if name else self.uri

        def ask() -> T:
            try:
                answer: T = sync(filesystem().loop, coroutine)
            except Exception as error:
                raise self._fault(error, where) from error
            return answer

        try:
            return persist(ask, _watch(self.bucket), self.traffic, self.patience_seconds)
        except TransientError as fault:
            text = f"no answer from {_endpoint()} for {self.patience_seconds:.0f} s ({fault})"
            raise OSError(errno.EIO, text, where) from fault

    def _fault(self, error: Exception, where: str) -> Exception:
        """What a failed request means: something that may pass, or an OSError in plain words."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError

        if isinstance(error, TransientError):
            return error
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ClientError):
            cause = cause.__cause__
        if isinstance(cause, ClientError):
            return self._refusal(cause.response, where)
        if isinstance(error, NoCredentialsError):
            text = "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            return PermissionError(errno.EACCES, text, where)
        if isinstance(error, ParamValidationError | ValueError):
            return OSError(errno.EINVAL, f"no address that S3 could have ({str(error).splitlines()[-1]})", where)
        if isinstance(error, BotoCoreError | OSError | asyncio.TimeoutError) or type(error).__module__ == "aiohttp":
            return TransientError(_kind(error), str(error).splitlines()[0] if str(error) else type(error).__name__)
        return error

    def _refusal(self, response: dict[str, Any], where: str) -> Exception:
        """What the server's own error means."""
        code, text = str(response["Error"].get("Code")), response["Error"].get("Message") or ""
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in PASSING or status in (429, 500, 502, 503, 504):
            return TransientError(str(status or code), f"{status} {code}")
        if code == "NoSuchBucket":
            # Not FileNotFoundError, which means that an object has yet to be written.
            return OSError(errno.ENXIO, f"there is no bucket {self.bucket!r}", where)
        if code in ("NoSuchKey", "404"):
            return FileNotFoundError(errno.ENOENT, "no such object", where)
        if code in ("PreconditionFailed", "412"):
            return FileExistsError(errno.EEXIST, "changed by someone else", where)
        if code == "RequestTimeTooSkewed":
            self._hear_clock(response)
            minutes = abs(self._ahead or 0) / 60
            return PermissionError(
                errno.EACCES, f"this machine's clock is {minutes:.0f} min from the server's: set it right", where
            )
        if code in ("SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken"):
            return PermissionError(
                errno.EACCES, f"wrong credentials ({code}): check AWS_ACCESS_KEY_ID and its secret", where
            )
        if status == 403:
            return PermissionError(errno.EACCES, f"not allowed ({code})", where)
        return OSError(errno.EIO, f"{status} {code}: {text}", where)

    def _hear_clock(self, response: dict[str, Any]) -> None:
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        if "date" in headers:
            self._ahead = parsedate_to_datetime(headers["date"]).timestamp() - time()


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
            made = S3FileSystem(config_kwargs=config, client_kwargs=region, use_listings_cache=False)
            made.retries = 1
            _filesystems[os.getpid()] = made
        return _filesystems[os.getpid()]


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "S3"


def _watch(bucket: str) -> Watch:
    with _lock:
        return _watches.setdefault(bucket, Watch(f"s3://{bucket} at {_endpoint()}"))


async def _within(work: Coroutine[Any, Any, T], size: int) -> T:
    """Ends a transfer of `size` bytes that trickles."""
    return await asyncio.wait_for(work, SILENT_SECONDS + size / SLOWEST)


def _kind(error: Exception) -> str:
    name = type(error).__name__.lower()
    return "timeout" if "timeout" in name else "cut" if "payload" in name or "stream" in name else "connection"
