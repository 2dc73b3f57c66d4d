"""What an object is called, and what is known about it before it is read."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from dinoidd.errors import ConfigError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_USER = re.compile(r"^(\w[\w+.-]*://)[^/@]*@")
# Parameters of signed web addresses: AWS, Google, CloudFront, Azure, and what others call their keys.
_SECRET = re.compile(
    r"^(x-amz-|x-goog-)|sign|^(sig|se|sp|sv|sr|spr|skoid|policy|expires|auth)$"
    r"|key|token|secret|password|credential|authorization",
    re.IGNORECASE,
)
_S3_ALIASES = {"s3a": "s3", "s3n": "s3"}


@dataclass(frozen=True, kw_only=True)
class StorageOptions:
    """Where object storage is. No secrets, so that it may travel to workers and into files."""

    endpoint_url: str | None = None  # None: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or AWS itself


DEFAULT_OPTIONS = StorageOptions()


def endpoint_of(options: StorageOptions) -> str | None:
    """The S3 endpoint in force: the option, or AWS' own environment variables."""
    environment = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return options.endpoint_url or environment or None


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectInfo:
    """One object of a listing."""

    uri: str
    size: int | None  # bytes; None where a list of URIs does not say
    etag: str | None = None  # without quotes; None where the store has none
    modified: float | None = field(default=None, compare=False)  # seconds since 1970, by its clock


def scheme_of(uri: str) -> str:
    """`s3`, `gs`, `https`, ...; `file` for paths and `file://`."""
    match = _SCHEME.match(uri)
    scheme = match[1].lower() if match else "file"
    return _S3_ALIASES.get(scheme, scheme)


def normalise(uri: str) -> str:
    """An absolute path for local files, `scheme://rest` otherwise; no trailing slash."""
    if not uri:
        raise ConfigError("an empty address was given: name a folder, a file or an s3:// prefix")
    scheme, rest = scheme_of(uri), _SCHEME.sub("", uri, count=1)
    if scheme == "file":
        return os.path.abspath(Path(rest).expanduser() if rest == uri else rest)  # noqa: PTH100
    if scheme not in ("http", "https"):  # whose last slash may belong to a signature
        rest = rest.rstrip("/")
    if not rest and scheme != "memory":
        raise ConfigError(f"{uri} names no bucket: write {scheme}://BUCKET/PREFIX")
    return f"{scheme}://{rest}"


def split_s3(uri: str) -> tuple[str, str]:
    """The bucket (or access point ARN) and the exact key of a normalised `s3://` URI."""
    match = re.fullmatch(r"s3://(arn:[^/]*/[^/]+|[^/]+)/?(.*)", uri, re.DOTALL)
    if match is None:
        raise ConfigError(f"{uri} names no bucket: write s3://BUCKET/PREFIX")
    return match[1], match[2]


def shown(uri: str) -> str:
    """The URI as it may appear in messages: without user, password, and what signs a web address."""
    if scheme_of(uri) not in ("http", "https"):
        return _USER.sub(r"\1", uri)
    try:
        parts = urlsplit(uri)
    except ValueError:  # it is no address, such as http://[::1/x.png: its row still names it
        return _USER.sub(r"\1", re.split("[?#]", uri)[0])
    return urlunsplit((parts.scheme, _host(parts.netloc), parts.path, "", ""))


def public(uri: str) -> str:
    """The URI as it may stand in results: a web address without user, password and signature.

    A query that signs nothing stays, because it may tell one image from another. One that has a
    parameter which looks like a secret goes as a whole: its other parameters belong to it.
    """
    if scheme_of(uri) not in ("http", "https"):
        return _USER.sub(r"\1", uri)
    try:
        parts = urlsplit(uri)
    except ValueError:
        return shown(uri)
    signed = any(_SECRET.search(pair.partition("=")[0]) for pair in parts.query.split("&"))
    return shown(uri) if signed else urlunsplit(parts._replace(netloc=_host(parts.netloc)))


def _host(netloc: str) -> str:
    return netloc.rpartition("@")[2]


def printable(text: str) -> str:
    """The text with control characters escaped: an object's name must not steer a terminal."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(letter: str) -> str:
    return letter if letter.isprintable() else repr(letter)[1:-1]
