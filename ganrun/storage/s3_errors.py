"""Maps failed S3 requests to a TransientError, which is retried, or to an OSError or UserError with a message."""

import errno
import os
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from ganrun.errors import UserError
from ganrun.storage.retry import TransientError
from ganrun.storage.s3_client import anonymous

PASSING = {"InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout", "OperationAborted"}
PASSING |= {"ConditionalRequestConflict", "Throttling", "TooManyRequests", "IncompleteBody", "BadDigest"}
WRONG_CREDENTIALS = {"SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "InvalidToken"}


def meaning(error: Exception, where: str) -> Exception:
    """Return the error to raise for a failed request.

    Returns:
        A TransientError if a retry may help; an OSError with `where` as its filename if not; a UserError if the AWS
        variables or files are wrong; `error` itself if it does not come from the storage.
    """
    import aiohttp
    from botocore import exceptions as boto

    text = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    if isinstance(error, boto.ClientError):
        return _refusal(error.response, where)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        text = (
            "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for a public bucket "
            "AWS_NO_SIGN_REQUEST=true"
        )
        return PermissionError(errno.EACCES, text, where)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        text = f"the server's certificate is not trusted ({text}); set AWS_CA_BUNDLE to its CA file"
        return OSError(errno.EPROTO, text, where)
    passing = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, boto.CredentialRetrievalError)
    # TimeoutError is an OSError. aiohttp errors come from reading a body, which botocore does not wrap.
    if isinstance(error, (*passing, aiohttp.ClientError, OSError)):
        return TransientError(_kind(error), text)
    if isinstance(error, boto.ParamValidationError):
        return OSError(errno.EINVAL, f"not a valid bucket or key ({text})", where)
    if isinstance(error, boto.BotoCoreError | ValueError):
        return _wrong_settings(error, text)
    return error


def _wrong_settings(error: Exception, text: str) -> UserError:
    from botocore import exceptions as boto

    if isinstance(error, boto.ProfileNotFound):
        name = next((each for each in ("AWS_DEFAULT_PROFILE", "AWS_PROFILE") if each in os.environ), "AWS_PROFILE")
        profile = error.kwargs["profile"]
        return UserError(f"{name}: no profile {profile!r} in ~/.aws/config or ~/.aws/credentials; add it, or unset it")
    if isinstance(error, boto.InvalidRegionError):
        name = next((each for each in ("AWS_REGION", "AWS_DEFAULT_REGION") if each in os.environ), "~/.aws/config")
        return UserError(f"{name}: {error.kwargs['region_name']!r} is no region, such as us-east-1")
    return UserError(f"invalid AWS variables or files: {text}")


def clock_ahead(response: dict[str, Any]) -> float | None:
    """Return server clock minus local clock in seconds, by the Date header; None without one."""
    date = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(date).timestamp() - time() if date else None


def _refusal(response: dict[str, Any], where: str) -> Exception:
    """Map an error response of the server."""
    code, text = str(response["Error"].get("Code")), response["Error"].get("Message") or ""
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in PASSING or status in (429, 500, 502, 503, 504):
        return TransientError(str(status or code), f"{status} {code}")
    if code == "NoSuchBucket":
        # Not FileNotFoundError: callers take that for an object that is not written yet.
        bucket = where.removeprefix("s3://").partition("/")[0]
        return OSError(errno.ENXIO, f"no such bucket: {bucket!r}", where)
    if status == 404:
        return FileNotFoundError(errno.ENOENT, f"no such {'upload' if code == 'NoSuchUpload' else 'object'}", where)
    if status == 412:
        return FileExistsError(errno.EEXIST, "changed by another process", where)
    if code == "RequestTimeTooSkewed":
        minutes = abs(clock_ahead(response) or 0) / 60
        text = f"the clock of this machine differs by {minutes:.0f} min from the server's; set it right"
        return PermissionError(errno.EACCES, text, where)
    if code in WRONG_CREDENTIALS:
        text = f"wrong credentials ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return PermissionError(errno.EACCES, text, where)
    if status == 403:
        unsigned = "; AWS_NO_SIGN_REQUEST is set, so no credentials were sent" if anonymous() else ""
        return PermissionError(errno.EACCES, f"access denied ({code}){unsigned}", where)
    return OSError(errno.EIO, f"{status} {code}: {text}", where)


def _kind(error: Exception) -> str:
    name = type(error).__name__.lower()
    if "timeout" in name:
        return "timeout"
    return "cut" if any(word in name for word in ("payload", "stream", "read")) else "connection"
