"""What is refused of an object before its body is read."""

from dinoidd.errors import StorageError
from dinoidd.storage.uri import ObjectInfo, printable


def refuse_over(uri: str, size: int | None, max_bytes: int | None) -> None:
    """Raise `too_large` where an object of `size` bytes passes the limit."""
    if max_bytes is not None and size is not None and size > max_bytes:
        message = f"{uri} has {size:,} bytes, more than the limit of {max_bytes:,} bytes"
        raise StorageError("too_large", printable(message))


def refuse_changed(
    uri: str, indexed: ObjectInfo | None, size: int | None, etag: str | None = None
) -> None:
    """Raise `changed` where size or ETag are known and differ from the earlier ones."""
    if indexed is None:
        return
    if None not in (size, indexed.size) and size != indexed.size:
        how = f"it had {indexed.size:,} bytes and has {size:,} now"
    elif None not in (etag, indexed.etag) and etag != _plain(indexed.etag):
        how = f"its ETag was {indexed.etag} and is {etag} now"
    else:
        return
    raise StorageError("changed", printable(f"{uri} changed after it was indexed: {how}"))


def _plain(etag: str | None) -> str | None:
    """Without the quotes that a list may have around it."""
    return etag and etag.strip('"')
