"""Storage in a bucket of S3 or of an S3-compatible server."""

import asyncio
import contextlib
import errno
import logging
import mimetypes
import uuid
from collections.abc import Callable, Coroutine, Iterator
from time import time
from typing import Any, TypeVar

from ganrun.storage import s3_client
from ganrun.storage.base import RECORD_BYTES, Entry, TooLargeError
from ganrun.storage.retry import PATIENCE_SECONDS, Traffic, TransientError, persist
from ganrun.storage.s3_errors import clock_ahead, meaning

logger = logging.getLogger(__name__)
PART = 16 * 2**20
"""Part size of multipart uploads in bytes. Objects of two parts or more are uploaded in parts."""
PARTS = 4
"""Parts of an upload in flight."""
DELETED_AT_ONCE = 1_000
"""Keys per DeleteObjects request, the maximum of S3."""
T = TypeVar("T")


class S3:
    """Objects below `s3://BUCKET/PREFIX`. Thread-safe, picklable and usable after a fork.

    Args:
        uri: URI of the prefix.
        patience_seconds: retry budget of a request.

    Raises:
        UserError: an AWS variable is malformed.
    """

    def __init__(self, uri: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
        s3_client.check_variables()
        self.bucket, *parts = [part for part in uri.removeprefix("s3://").split("/") if part]
        self._prefix, self.patience_seconds = "/".join(parts), patience_seconds
        self.uri = "/".join(["s3:/", self.bucket, *parts])
        self.traffic = Traffic()
        self._ahead: float | None = None
        """Server clock minus local clock in seconds; None before the first answer."""
        self._appended: dict[str, bytes] = {}

    def read(self, name: str, limit: int | None = None) -> bytes:
        return s3_client.run(self._get(name, limit))[0]

    def read_version(self, name: str) -> tuple[bytes, str] | None:
        try:
            return s3_client.run(self._get(name, RECORD_BYTES))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        if len(data) < 2 * PART:
            self._call("put_object", name, Key=self._key(name), Body=data, ContentType=kind)
            return
        try:
            s3_client.run(self._put_parts(name, data, kind))
        except FileNotFoundError:
            # NoSuchUpload: the server dropped the upload, or completed it and its answer was lost. Upload again.
            s3_client.run(self._put_parts(name, data, kind))

    def append(self, name: str, data: bytes) -> None:
        # S3 cannot append, so the object is rewritten; its content is kept here to avoid reading it each time.
        if name not in self._appended:
            try:
                self._appended[name] = self.read(name)
            except FileNotFoundError:
                self._appended[name] = b""
        whole = self._appended[name] + data
        self.write(name, whole)
        self._appended[name] = whole

    def create(self, name: str, data: bytes) -> bool:
        return self._put_if(name, data, IfNoneMatch="*")

    def replace(self, name: str, data: bytes, version: str) -> bool:
        return self._put_if(name, data, IfMatch=version)

    def list(self, name: str = "") -> list[str]:
        below = self._below(name)
        found = set()
        for page in self._pages(below, Delimiter="/"):
            found |= {entry["Prefix"] for entry in page.get("CommonPrefixes", ())}
            found |= {entry["Key"] for entry in page.get("Contents", ())}
        names = sorted(key.removeprefix(below).rstrip("/") for key in found)
        return [each for each in names if each and not each.startswith(".")]

    def objects(self) -> dict[str, Entry]:
        below = self._below("")
        return {
            entry["Key"].removeprefix(below): Entry(entry["Size"], entry["LastModified"].timestamp())
            for page in self._pages(below)
            for entry in page.get("Contents", ())
            if not entry["Key"].endswith("/")  # Placeholder of an empty folder, made by web consoles.
        }

    def delete(self, name: str) -> None:
        if name:
            self._call("delete_object", name, Key=self._key(name))
        below = self._below(name)
        keys = [entry["Key"] for page in self._pages(below) for entry in page.get("Contents", ())]
        # Some servers store folders as objects that can be deleted only when empty: delete the deepest first.
        folders = {key[: end + 1] for key in keys for end in range(len(below) - 1, len(key)) if key[end] == "/"}
        folders |= {below} if below and not name else set()
        keys = [key for key in keys if key not in folders] + sorted(folders, key=len, reverse=True)
        for start in range(0, len(keys), DELETED_AT_ONCE):
            listed = [{"Key": key} for key in keys[start : start + DELETED_AT_ONCE]]
            answer = self._call("delete_objects", name, Delete={"Objects": listed, "Quiet": True})
            if refused := answer.get("Errors"):
                where = f"s3://{self.bucket}/{refused[0]['Key']}"
                raise PermissionError(errno.EACCES, f"no right to delete it ({refused[0]['Code']})", where)

    def now(self) -> float:
        if self._ahead is None:
            self._call("list_objects_v2", "", Prefix=self._below(""), MaxKeys=1)
        return time() + (self._ahead or 0.0)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _below(self, name: str) -> str:
        """Return the key prefix of everything below `name`."""
        return self._key(f"{name}/" if name else "")

    def _put_if(self, name: str, data: bytes, **condition: str) -> bool:
        mine = uuid.uuid4().hex
        try:
            self._call("put_object", name, Key=self._key(name), Body=data, Metadata={"write": mine}, **condition)
        except (FileExistsError, FileNotFoundError):
            # A retry sees our own write as a conflict if only the answer was lost: compare the id in the metadata.
            with contextlib.suppress(FileNotFoundError):
                found = self._call("head_object", name, Key=self._key(name))
                return bool(found["Metadata"].get("write") == mine)
            return False
        return True

    def _pages(self, prefix: str, **options: Any) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", "", Prefix=prefix, **token, **options)
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    async def _get(self, name: str, limit: int | None) -> tuple[bytes, str]:
        async def get() -> tuple[bytes | int, str]:
            response = await (await s3_client.client()).get_object(Bucket=self.bucket, Key=self._key(name))
            self._ahead = clock_ahead(response)
            size: int = response["ContentLength"]
            if limit is not None and size > limit:
                response["Body"].close()
                return size, response["ETag"]
            async with response["Body"] as body:
                return await s3_client.within(body.read(), size), response["ETag"]

        data, version = await self._ask(name, get)
        if isinstance(data, int):
            raise TooLargeError(data, limit or 0, f"{self.uri}/{name}")
        self.traffic.bytes_read += len(data)
        return data, version

    async def _put_parts(self, name: str, data: bytes, kind: str) -> None:
        """Write a large object by multipart upload. Parts are retried one by one.

        Raises:
            FileNotFoundError: the server does not know the upload (any more).
        """
        key, turn = self._key(name), asyncio.Semaphore(PARTS)
        upload = (await self._request("create_multipart_upload", name, Key=key, ContentType=kind))["UploadId"]

        async def put(number: int) -> dict[str, Any]:
            async with turn:
                body, place = data[(number - 1) * PART : number * PART], {"UploadId": upload, "PartNumber": number}
                answer = await self._request("upload_part", name, Key=key, Body=body, **place)
            return {"ETag": answer["ETag"], "PartNumber": number}

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(put(number + 1)) for number in range(-(-len(data) // PART))]
            parts = {"Parts": [task.result() for task in tasks]}
            await self._request("complete_multipart_upload", name, Key=key, UploadId=upload, MultipartUpload=parts)
        except BaseException as error:
            with contextlib.suppress(Exception):  # If this fails too, a lifecycle rule of the bucket has to clean up.
                await (await s3_client.client()).abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)
            raise error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error from None

    def _call(self, method: str, name: str, **arguments: Any) -> dict[str, Any]:
        return s3_client.run(self._request(method, name, **arguments))

    async def _request(self, method: str, name: str, **arguments: Any) -> dict[str, Any]:
        size = len(arguments.get("Body", b""))

        async def call() -> dict[str, Any]:
            ask = getattr(await s3_client.client(), method)
            response: dict[str, Any] = await s3_client.within(ask(Bucket=self.bucket, **arguments), size)
            self._ahead = clock_ahead(response)
            return response

        response = await self._ask(name, call)
        self.traffic.bytes_written += size
        return response

    async def _ask(self, name: str, request: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Send a request, with retries.

        Raises:
            UserError: the AWS variables or files are wrong.
            OSError: the request failed. `strerror` is a message for the user, `filename` the URI of the object.
        """
        where = f"{self.uri}/{name}" if name else self.uri

        logger.debug("request: %s", where)

        async def ask() -> T:
            try:
                return await request()
            except Exception as error:
                raise meaning(error, where) from error

        try:
            return await persist(ask, s3_client.watch(self.bucket), self.traffic, self.patience_seconds)
        except TransientError as fault:
            text = f"no answer from {s3_client.endpoint()} for {self.patience_seconds:.0f} s ({fault})"
            raise OSError(errno.EIO, text, where) from fault
