"""The folder of one export: marked as ours, so that no other folder is ever written into."""

import json
from pathlib import Path
from typing import Any

from dinoidd.errors import OutputError
from dinoidd.storage import StorageOptions, Store

RECORD = "export.json"
_LAYOUT = 1  # raised when the same export would write other files


class ExportFolder:
    """Files appear whole under their names; those that are there already stay.

    Raises:
        OutputError: the folder holds something else, or another export.
    """

    def __init__(self, to: str, options: StorageOptions, identity: dict[str, Any]) -> None:
        self._store = Store.open(to, options)
        self._identity = identity | {"layout": _LAYOUT}
        self.uri = self._store.uri
        if self._store.exists(RECORD):
            self._check_same()
        elif self._store.is_folder() and next(self._store.walk(), None):
            raise OutputError(
                f"{self.uri} is not empty and no export of dinoidd (it has no {RECORD}): "
                "give --to a new or empty folder"
            )
        self._write_record({})

    def has(self, name: str) -> bool:
        """Whether the file is there; if it is, it is whole."""
        return self._store.exists(name)

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a file."""
        self._store.write_bytes(name, data)

    def upload(self, local: Path, name: str) -> None:
        """Write or replace a file of any size."""
        self._store.upload(local, name)

    def names(self, folder: str) -> list[str]:
        """The files directly in a folder of the export."""
        return self._store.child(folder).names()

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._store.remove(name)

    def finish(self, result: dict[str, Any]) -> None:
        """Note that the export is complete."""
        self._write_record({"result": result})

    def _write_record(self, more: dict[str, Any]) -> None:
        self._store.write_bytes(RECORD, json.dumps(self._identity | more, indent=1).encode())

    def _check_same(self) -> None:
        try:
            there = json.loads(self._store.read_bytes(RECORD))
            different = [k for k, v in self._identity.items() if there.get(k) != v]
        except (ValueError, AttributeError) as error:
            raise OutputError(
                f"{self.uri}/{RECORD} is not one of dinoidd's: give --to a new or empty folder"
            ) from error
        if different:
            was = "; ".join(
                f"{k} was {there.get(k)!r} and is {self._identity[k]!r}" for k in different
            )
            raise OutputError(
                f"{self.uri} holds another export: {was}. Give --to a new or empty folder"
            )
