"""S3 and everything that speaks it, through s3fs.

Keys are sent as they are: s3fs' path functions would read `?versionId=` and globs out of them, so
objects are asked for by bucket and key. One GET reads one image, without a HEAD before it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import fsspec.asyn
import pyarrow.fs

from dinoidd.errors import OutageError, OutputError, StorageError
from dinoidd.storage.arrow import arrow_filesystem
from dinoidd.storage.limits import refuse_changed, refuse_over
from dinoidd.storage.uri import ObjectInfo, StorageOptions, endpoint_of, printable, split_s3

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 20
UPLOAD_TIMEOUT_S = 60  # of a whole file, and
SLOWEST_UPLOAD = 1 << 19  # bytes a second
ATTEMPTS = 3
CONNECTIONS = 64  # a worker's fetch threads share them
KEYS_PER_REQUEST = 1000  # as many as S3 lists or removes at once


def s3_filesystem(options: StorageOptions, attempts: int = ATTEMPTS) -> Any:
    """An s3fs file system: no caches of listings or instances, short time-outs, few retries."""
    endpoint = endpoint_of(options)
    config: dict[str, object] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "max_pool_connections": CONNECTIONS,
        "retries": {"mode": "standard", "total_max_attempts": attempts},
    }
    if endpoint:
        config["s3"] = {"addressing_style": "path"}  # a private server rarely has a name a bucket
    fs = fsspec.filesystem(
        "s3",
        endpoint_url=endpoint,
        config_kwargs=config,
        use_listings_cache=False,
        skip_instance_cache=True,
        default_cache_type="none",  # pyarrow knows which ranges it wants
    )
    fs.retries = 2  # on top of botocore's own
    return fs


class S3Files:
    """Objects of one S3 server."""

    def __init__(self, options: StorageOptions) -> None:
        self.options = options
        self.fs = s3_filesystem(options)  # tries again by itself, a few times and briefly
        self.single = s3_filesystem(options, attempts=1)  # for what `persist` tries again

    def info(self, uri: str) -> ObjectInfo | None:
        """The object's entry. A listing, because unlike a HEAD it says why it is refused."""
        bucket, key = split_s3(uri)
        page = self.fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)
        found = [o for o in page.get("Contents", []) if key and o["Key"] == key]
        return _object(bucket, found[0]) if found else None

    def is_folder(self, uri: str) -> bool:
        """Whether any key lies under the prefix; a bucket that is there always is a folder."""
        bucket, key = split_s3(uri)
        prefix = f"{key}/" if key else ""
        page = self.fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        return not key or bool(page.get("Contents"))

    def read(
        self,
        uri: str,
        max_bytes: int | None = None,
        indexed: ObjectInfo | None = None,
        seconds: float | None = None,
    ) -> bytes:
        """The whole object, by one GET; its size and ETag are looked at before the body is."""
        loop = self.single.loop
        return fsspec.asyn.sync(loop, self._read, uri, max_bytes, indexed, seconds)

    async def _read(
        self,
        uri: str,
        max_bytes: int | None,
        indexed: ObjectInfo | None,
        seconds: float | None,
    ) -> bytes:
        bucket, key = split_s3(uri)
        async with _within(seconds, uri, "read"):
            client = await self._client(bucket)
            answer = await client.get_object(Bucket=bucket, Key=key)
            try:
                size = answer.get("ContentLength")  # a proxy may leave it out
                refuse_changed(uri, indexed, size, _etag(answer))
                refuse_over(uri, size, max_bytes)
                data = await answer["Body"].read()
            finally:
                answer["Body"].close()
        refuse_changed(uri, indexed, len(data))
        return data

    async def _client(self, bucket: str) -> Any:
        await self.single.set_session()
        return await self.single.get_s3(bucket)

    def open(self, uri: str) -> BinaryIO:
        """The object as a file with read-ahead."""
        return self._opened(_plain(uri), block_size=8 << 20, cache_type="readahead")

    def _opened(self, path: str, **how: Any) -> BinaryIO:
        try:
            return self.fs.open(path, "rb", **how)
        except FileNotFoundError:
            raise
        except Exception:
            self.info(f"s3://{path.removeprefix('s3://')}")  # says why, which the HEAD did not
            raise

    def write(self, uri: str, data: bytes, seconds: float | None = None) -> None:
        """One PUT: the object appears whole or not at all."""
        fsspec.asyn.sync(self.single.loop, self._write, uri, data, seconds)

    async def _write(self, uri: str, data: bytes, seconds: float | None) -> None:
        bucket, key = split_s3(uri)
        async with _within(seconds, uri, "written"):
            client = await self._client(bucket)
            await client.put_object(Bucket=bucket, Key=key, Body=data)

    def upload(self, local: Path, uri: str) -> None:
        """One PUT, or a multipart upload that is completed at its end or aborted."""
        fsspec.asyn.sync(self.fs.loop, self._upload, local, uri)

    async def _upload(self, local: Path, uri: str) -> None:
        seconds = UPLOAD_TIMEOUT_S + local.stat().st_size / SLOWEST_UPLOAD
        async with _within(seconds, uri, "written"):
            await self.fs._put_file(str(local), _plain(uri))

    def names(self, uri: str) -> list[str]:
        """Objects directly under the prefix, sorted, without hidden ones."""
        bucket, key = split_s3(uri)
        prefix = f"{key}/" if key else ""
        names = [o["Key"][len(prefix) :] for o in self._keys(bucket, prefix, Delimiter="/")]
        return sorted(name for name in names if name and name[0] != ".")

    def walk(self, uri: str, starts: str, depth: int | None) -> Iterator[ObjectInfo]:
        """Every object under the prefix, page by page, in the store's order."""
        bucket, key = split_s3(uri)
        prefix = f"{key}/" if key else ""
        for found in self._keys(bucket, prefix + starts):
            rest = found["Key"][len(prefix) :]
            is_marker = rest == "" or rest.endswith("/")  # consoles make these for "folders"
            if not is_marker and (depth is None or rest.count("/") <= depth):
                yield _object(bucket, found)

    def _keys(self, bucket: str, prefix: str, **more: str) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            where: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, **more, **token}
            page = self.fs.call_s3("list_objects_v2", MaxKeys=KEYS_PER_REQUEST, **where)
            yield from page.get("Contents", [])
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def remove(self, uri: str) -> None:
        """Remove an object; S3 has no error for one that is not there."""
        bucket, key = split_s3(uri)
        self.fs.call_s3("delete_object", Bucket=bucket, Key=key)

    def remove_all(self, uri: str) -> None:
        """Remove every object under the prefix, a thousand a request."""
        bucket, key = split_s3(uri)
        if not key:
            raise OutputError(f"refusing to remove all of the bucket {bucket!r}: name a prefix")
        batch: list[dict[str, str]] = []
        for found in self._keys(bucket, f"{key}/"):
            batch.append({"Key": found["Key"]})
            if len(batch) == KEYS_PER_REQUEST:
                self._remove_batch(bucket, batch)
                batch = []
        if batch:
            self._remove_batch(bucket, batch)

    def _remove_batch(self, bucket: str, batch: list[dict[str, str]]) -> None:
        wanted = {"Objects": batch, "Quiet": True}
        answer = self.fs.call_s3("delete_objects", Bucket=bucket, Delete=wanted)
        for error in answer.get("Errors", []):
            reason = f"the store answered {error.get('Code')}"
            raise StorageError(
                "forbidden", f"s3://{bucket}/{error.get('Key')} cannot be removed: {reason}"
            )

    def remove_unfinished(self, uri: str) -> None:
        """Abort multipart uploads below the prefix that nobody completed."""
        bucket, key = split_s3(uri)
        marks: dict[str, str] = {}
        while True:
            where = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", **marks}
            page = self.fs.call_s3("list_multipart_uploads", **where)
            for found in page.get("Uploads", []):
                ids = {"Key": found["Key"], "UploadId": found["UploadId"]}
                self.fs.call_s3("abort_multipart_upload", Bucket=bucket, **ids)
            if not page.get("IsTruncated"):
                return
            marks = {name: page[f"Next{name}"] for name in ("KeyMarker", "UploadIdMarker")}

    def arrow(self, uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
        """s3fs for pyarrow, so that both look for credentials in the same places."""
        plain = _plain(uri).removeprefix("s3://")
        return arrow_filesystem(self.fs, self._opened), plain


@asynccontextmanager
async def _within(seconds: float | None, uri: str, done: str) -> AsyncIterator[None]:
    """Raise OutageError where it takes longer: bytes may trickle, and a stalled upload has no other
    time-out."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError as error:
        if not limit.expired():
            raise
        what = f"{uri} cannot be {done}: it takes more than {seconds:.0f} s"
        raise OutageError("unreachable", printable(what)) from error


def _object(bucket: str, entry: dict[str, Any]) -> ObjectInfo:
    uri = f"s3://{bucket}/{entry['Key']}"
    modified = entry["LastModified"].timestamp()
    return ObjectInfo(uri=uri, size=entry["Size"], etag=_etag(entry), modified=modified)


def _etag(answer: dict[str, Any]) -> str | None:
    return (answer.get("ETag") or "").strip('"') or None


def _plain(uri: str) -> str:
    """The URI, for calls that would take a part of an odd key for an object's version."""
    if "?versionId=" in uri:
        raise StorageError("unreadable", f"{uri} cannot be used here: it holds '?versionId='")
    return uri
