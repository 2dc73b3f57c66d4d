"""Files, in a local folder or in object storage. The only package that knows fsspec and S3.

`Store` is a folder that is listed, written and read; `ObjectReader` reads single objects by URI.
Credentials and region come from the usual AWS places (environment, profile, instance role) and are
kept in no object here. URIs are literal: nothing is percent-decoded, and `#`, `?`, `%` and spaces
are letters.
"""

from dinoidd.storage.reader import ObjectReader
from dinoidd.storage.retry import BRISK, STEADY, Patience
from dinoidd.storage.store import Store
from dinoidd.storage.uri import (
    DEFAULT_OPTIONS,
    ObjectInfo,
    StorageOptions,
    normalise,
    printable,
    public,
    shown,
)

__all__ = [
    "BRISK",
    "DEFAULT_OPTIONS",
    "STEADY",
    "ObjectInfo",
    "ObjectReader",
    "Patience",
    "StorageOptions",
    "Store",
    "normalise",
    "printable",
    "public",
    "shown",
]
