"""Single objects by their URI, for the threads that fetch images."""

from dataclasses import dataclass

from dinoidd.errors import DinoiddError, StorageError
from dinoidd.storage.backend import backend_of
from dinoidd.storage.failure import told
from dinoidd.storage.uri import DEFAULT_OPTIONS, StorageOptions, normalise


@dataclass(frozen=True)
class ObjectReader:
    """Reads whole objects from any store. Picklable; the connections belong to the process."""

    options: StorageOptions = DEFAULT_OPTIONS

    def read(self, uri: str, max_bytes: int | None = None) -> bytes:
        """The object's bytes, from any thread.

        Raises StorageError alone: `missing`, `forbidden`, `unreachable`, `unreadable`, or
        `too_large` for an object over `max_bytes`, which is refused before its body is read.
        """
        try:
            name = normalise(uri)
            with told(name, self.options):
                return backend_of(name, self.options).read(name, max_bytes)
        except StorageError:
            raise
        except DinoiddError as error:
            raise StorageError("unreadable", str(error)) from error
