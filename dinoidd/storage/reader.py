"""Single objects by their URI, for the threads that fetch images."""

from dataclasses import dataclass

from dinoidd.errors import DinoiddError, OutageError, StorageError
from dinoidd.storage.backend import backend_of
from dinoidd.storage.failure import told
from dinoidd.storage.retry import BRISK, ONCE, Patience, persist
from dinoidd.storage.uri import DEFAULT_OPTIONS, ObjectInfo, StorageOptions, normalise, scheme_of


@dataclass(frozen=True)
class ObjectReader:
    """Reads whole objects from any store. Picklable; the connections belong to the process."""

    options: StorageOptions = DEFAULT_OPTIONS
    patience: Patience = BRISK

    def read(
        self, uri: str, max_bytes: int | None = None, indexed: ObjectInfo | None = None
    ) -> bytes:
        """The object's bytes, from any thread.

        Args:
            max_bytes: a larger object is refused before its body is read.
            indexed: what was known of the object earlier; it has to be the same still, as far as its
                store tells (S3: size and ETag; others: size).

        Raises:
            StorageError: this object cannot be had: `missing`, `forbidden`, `too_large`, `changed`,
                `unreadable`, or `unreachable` though its store answers otherwise.
            OutageError: nothing can be had from its store (`unreachable`, `credentials`).
        """
        try:
            name = normalise(uri)
            return persist(lambda left: self._once(name, max_bytes, indexed, left), self.patience)
        except OutageError as error:
            if error.kind == "unreachable" and self._store_answers(name):
                raise StorageError(error.kind, str(error)) from error
            raise
        except StorageError:
            raise
        except DinoiddError as error:
            raise StorageError("unreadable", str(error)) from error

    def _once(
        self, name: str, max_bytes: int | None, indexed: ObjectInfo | None, seconds: float
    ) -> bytes:
        with told(name, self.options):
            return backend_of(name, self.options).read(name, max_bytes, indexed, seconds)

    def check_store(self, uri: str) -> None:
        """Ask the store of an object something else than the object.

        A web host is no store: among many addresses, one that is dead must not stop the others.

        Raises:
            OutageError: it does not answer.
        """
        if scheme_of(uri) in ("http", "https"):
            return
        try:
            name = normalise(uri)
            with told(name, self.options, "looked up"):
                backend_of(name, self.options).info(name)
        except OutageError:
            raise
        except DinoiddError:  # it says no, so it is there; or it is an address of nobody
            return

    def answers(self, uri: str) -> bool:
        """Whether anything comes back for an object, a refusal too; its body is not read."""
        try:
            self._once(normalise(uri), 0, None, ONCE.seconds)
        except StorageError as error:
            # `unreadable` may be an address that nobody could be asked for
            return error.kind != "unreadable" and not isinstance(error, OutageError)
        except DinoiddError:
            return False
        return True

    def _store_answers(self, name: str) -> bool:
        try:
            self.check_store(name)
        except OutageError:
            return False
        return True
