"""What a failed request to S3 means: something that may pass, or an OSError in plain words."""

import errno
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from ganrun.storage.retry import TransientError

PASSING = {"InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout", "OperationAborted"}
PASSING |= {"ConditionalRequestConflict", "Throttling", "TooManyRequests", "IncompleteBody", "BadDigest"}
WRONG_CREDENTIALS = {"SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken"}


def meaning(error: Exception, where: str) -> Exception:
    """A TransientError, or an OSError with `where` as its filename; `error` itself if it is none of the storage's."""
    import aiohttp
    from botocore import exceptions as boto

    text = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    if isinstance(error, boto.ClientError):
        return _refusal(error.response, where)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        text = "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        return PermissionError(errno.EACCES, text, where)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return OSError(errno.EPROTO, f"the server's certificate is not trusted ({text}): see AWS_CA_BUNDLE", where)
    passing = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, boto.CredentialRetrievalError)
    # TimeoutError is an OSError. aiohttp's own come from the body of an answer, which botocore does not wrap.
    if isinstance(error, (*passing, aiohttp.ClientError, OSError)):
        return TransientError(_kind(error), text)
    if isinstance(error, boto.ParamValidationError):
        return OSError(errno.EINVAL, f"no address that S3 could have ({text})", where)
    if isinstance(error, boto.BotoCoreError | ValueError):
        return OSError(errno.EINVAL, f"the AWS variables or files are wrong ({text})", where)
    return error


def clock_ahead(response: dict[str, Any]) -> float | None:
    """The server's clock less ours in seconds, as its answer tells."""
    date = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(date).timestamp() - time() if date else None


def _refusal(response: dict[str, Any], where: str) -> Exception:
    """What the server's own error means."""
    code, text = str(response["Error"].get("Code")), response["Error"].get("Message") or ""
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in PASSING or status in (429, 500, 502, 503, 504):
        return TransientError(str(status or code), f"{status} {code}")
    if code == "NoSuchBucket":
        # Not FileNotFoundError, which means that an object has yet to be written.
        bucket = where.removeprefix("s3://").partition("/")[0]
        return OSError(errno.ENXIO, f"there is no bucket {bucket!r}", where)
    if status == 404:
        return FileNotFoundError(errno.ENOENT, f"no such {'upload' if code == 'NoSuchUpload' else 'object'}", where)
    if status == 412:
        return FileExistsError(errno.EEXIST, "changed by someone else", where)
    if code == "RequestTimeTooSkewed":
        minutes = abs(clock_ahead(response) or 0) / 60
        text = f"this machine's clock is {minutes:.0f} min from the server's: set it right"
        return PermissionError(errno.EACCES, text, where)
    if code in WRONG_CREDENTIALS:
        text = f"wrong credentials ({code}): check AWS_ACCESS_KEY_ID and its secret"
        return PermissionError(errno.EACCES, text, where)
    if status == 403:
        return PermissionError(errno.EACCES, f"not allowed ({code})", where)
    return OSError(errno.EIO, f"{status} {code}: {text}", where)


def _kind(error: Exception) -> str:
    name = type(error).__name__.lower()
    if "timeout" in name:
        return "timeout"
    return "cut" if any(word in name for word in ("payload", "stream", "read")) else "connection"
