"""Where the images of a run lie, by a few of them, for a driver that asks whether all is out."""

from dataclasses import dataclass
from functools import cached_property

from dinoidd.data.manifest import read_rows
from dinoidd.segment.run_record import RunRecord
from dinoidd.segment.source_check import SAMPLES, check_web, pick_witnesses
from dinoidd.storage import ObjectReader, Store
from dinoidd.storage.uri import scheme_of


@dataclass(frozen=True)
class Sources:
    """Asked once when a session begins to read, and again in its pauses."""

    manifest: Store
    record: RunRecord
    of_failures: bool  # all images failed before: that none answers is no sign of an outage

    @cached_property
    def witnesses(self) -> tuple[str, ...]:
        """What `check_source` may ask. A single piece has nothing to be compared with."""
        whole = self.record.layout.chunks > 1 and not self.of_failures
        return pick_witnesses(self._samples, self.manifest.options, whole=whole)

    def check(self) -> None:
        """Raise OutageError where a store is out, or the web servers are."""
        reader = ObjectReader(self.manifest.options)
        for uri in {scheme_of(uri): uri for uri in self._samples}.values():
            reader.check_store(uri)
        check_web(self.witnesses, self.manifest.options)

    @cached_property
    def _samples(self) -> list[str]:
        """Addresses from the first of the input to the last."""
        last = self.record.layout.rows - 1
        places = sorted({i * last // (SAMPLES - 1) for i in range(SAMPLES)})
        version = self.record.identity["manifest sha256"]
        return [read_rows(self.manifest, p, p + 1, version)["uri"][0].as_py() for p in places]
