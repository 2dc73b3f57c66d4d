"""What went wrong in a store, as a kind and a sentence for a person, without secrets.

The texts of the libraries' own errors are not passed on: they may quote signed addresses.
"""

import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

from dinoidd.errors import DinoiddError, OutageError, StorageError
from dinoidd.storage.backend import forget
from dinoidd.storage.uri import (
    StorageOptions,
    endpoint_of,
    printable,
    scheme_of,
    shown,
    split_s3,
)

_WRONG_KEY = "the store does not know the access key: check AWS_ACCESS_KEY_ID or AWS_PROFILE"
_WRONG_SECRET = (
    "the access key and the secret key do not fit: check AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY"
)
_EXPIRED = "the session token is expired or invalid: sign in again or renew AWS_SESSION_TOKEN"
_NO_CREDENTIALS = (
    "no usable credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
)
_DENIED = "access is denied: these credentials have no permission for it"
_REGION = "the bucket is in another region: set AWS_DEFAULT_REGION"
_CLOCK = f"the store refuses the request's time: set the clock of {platform.node()}"
_BUSY = "the store is overloaded or failing ({code})"
_FULL = "no room is left on the device: free some, and run the same command again"

_S3_CODES = {
    "NoSuchKey": ("missing", "there is no such object"),
    "NoSuchVersion": ("missing", "there is no such object"),
    "404": ("missing", "there is no such object"),
    "InvalidAccessKeyId": ("credentials", _WRONG_KEY),
    "SignatureDoesNotMatch": ("credentials", _WRONG_SECRET),
    "ExpiredToken": ("credentials", _EXPIRED),
    "InvalidToken": ("credentials", _EXPIRED),
    "TokenRefreshRequired": ("credentials", _EXPIRED),
    "RequestTimeTooSkewed": ("credentials", _CLOCK),
    "AccessDenied": ("forbidden", _DENIED),
    "AllAccessDisabled": ("forbidden", _DENIED),
    "401": ("forbidden", _DENIED),
    "403": ("forbidden", _DENIED),
    "AuthorizationHeaderMalformed": ("forbidden", _REGION),
    "PermanentRedirect": ("forbidden", _REGION),
    "301": ("forbidden", _REGION),
    "InvalidObjectState": ("unreadable", "the object is archived: restore it first"),
    "InvalidBucketName": ("missing", "this is no valid bucket name"),
    "KeyTooLongError": ("unreadable", "the key is longer than the store allows"),
    "QuotaExceeded": ("full", "the quota of the bucket is used up"),
    "XMinioStorageFull": ("full", _FULL),
}
_S3_BUSY = {
    "SlowDown",
    "ServiceUnavailable",
    "InternalError",
    "RequestTimeout",
    "Throttling",
    "429",
}
_LOST = {
    *(errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    *(errno.ENETDOWN, errno.ENETUNREACH),
}  # of a mounted network folder
_OUTAGES = ("unreachable", "credentials")


@contextmanager
def told(uri: str, options: StorageOptions, doing: str = "read") -> Iterator[None]:
    """Turn whatever a store raises over `uri` into one StorageError or OutageError."""
    try:
        yield
    except DinoiddError:
        raise
    except Exception as error:
        kind, reason = explain(error, uri, options)
        if kind == "credentials":
            forget()  # the next to ask reads them again: they may be new
        what = OutageError if kind in _OUTAGES else StorageError
        raise what(kind, f"{printable(shown(uri))} cannot be {doing}: {reason}") from error


def explain(error: BaseException, uri: str, options: StorageOptions) -> tuple[str, str]:
    """The kind and the reason of a library's error; the innermost cause that is known counts."""
    seen: BaseException | None = error
    while seen is not None:
        found = _s3_response(seen, uri) or _web_status(seen, "status") or _local_refusal(seen)
        if found:
            return found
        seen = seen.__cause__
    answer = _web_status(error, "code")  # not in causes: aiohttp calls a broken body code 400
    if answer:
        return answer
    if _is_connection(error):
        return "unreachable", f"{_server(uri, options)} does not answer ({type(error).__name__})"
    return _system(error)


def _s3_response(error: BaseException, uri: str) -> tuple[str, str] | None:
    """What an S3 server answered (botocore's ClientError)."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict) or "Error" not in response:
        return None
    code = str(response["Error"].get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return "missing", f"there is no bucket {split_s3(uri)[0]!r} on this store"
    if code in _S3_CODES:
        return _S3_CODES[code]
    if code in _S3_BUSY or status >= 500 or code[:1] == "5":
        return "unreachable", _BUSY.format(code=code)
    if status in (401, 403):
        return "forbidden", f"{_DENIED} ({code})"
    return "unreadable", f"the store answered {code or status}"


def _web_status(error: BaseException, name: str) -> tuple[str, str] | None:
    """What a web server or another cloud answered (`status` in aiohttp, `code` in gcsfs)."""
    text = str(getattr(error, name, ""))
    status = int(text) if text.isdecimal() else 0
    if status in (401, 403):
        return "forbidden", _DENIED
    if status in (404, 410):
        return "missing", "there is no such object"
    if status == 429 or status >= 500:
        return "unreachable", _BUSY.format(code=status)
    if status >= 400:
        return "unreadable", f"the server answered {status}"
    return None


def _local_refusal(error: BaseException) -> tuple[str, str] | None:
    """Whether it failed before a request was made, for want of credentials or a valid name."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"ProfileNotFound"}:
        return "credentials", f"there is no AWS profile {os.environ.get('AWS_PROFILE', '')!r}"
    if names & {"TokenRetrievalError", "UnauthorizedSSOTokenError", "SSOTokenLoadError"}:
        return "credentials", _EXPIRED
    if names & {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}:
        return "credentials", _NO_CREDENTIALS
    if names & {"ParamValidationError"}:
        return "missing", "the name of the bucket or the key is not a valid one"
    if names & {"InvalidEndpointError"} or (
        isinstance(error, ValueError) and "Invalid endpoint" in str(error)
    ):
        return "unreachable", "the endpoint is no web address: write http(s)://HOST:PORT"
    return None


def _is_connection(error: BaseException) -> bool:
    """Connection, name and time-out errors of sockets, aiohttp, botocore and fsspec."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(
        isinstance(error, ConnectionError | TimeoutError)
        or names & {"HTTPClientError", "ConnectionError", "ClientError", "gaierror"}
        or names & {"FSTimeoutError", "IncompleteReadError", "ResponseParserError"}
    )


def _system(error: BaseException) -> tuple[str, str]:
    """An error of the operating system, or one that nobody foresaw."""
    if isinstance(error, FileNotFoundError):
        return "missing", "there is no such file"
    if isinstance(error, PermissionError):
        return "forbidden", "access is denied"
    if isinstance(error, IsADirectoryError):
        return "unreadable", "it is a folder"
    if isinstance(error, NotADirectoryError | FileExistsError):
        return "missing", "a part of the path is a file, not a folder"
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT):
        return "full", _FULL
    if code in _LOST:
        return "unreachable", f"the file system does not answer ({os.strerror(code)})"
    if isinstance(error, OSError) and error.errno is not None:
        return "unreadable", os.strerror(error.errno)
    return "unreadable", f"{type(error).__name__} in the storage library"


def _server(uri: str, options: StorageOptions) -> str:
    """The store's name for a message."""
    if scheme_of(uri) == "s3":
        endpoint = endpoint_of(options)
        return f"the S3 server {shown(endpoint)}" if endpoint else "the S3 service"
    return "the server"
