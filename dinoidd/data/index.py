"""The manifest of a run's inputs: one or several listings, and the part of them that is wanted."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dinoidd.data.listing import list_images
from dinoidd.data.manifest import FOLDER, ManifestInfo, write_manifest
from dinoidd.data.selection import Listed, Selection, select_images
from dinoidd.storage import DEFAULT_OPTIONS, ObjectInfo, StorageOptions, Store, normalise, shown


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a manifest's images come from: all of the inputs in order, or a selection of them."""

    inputs: tuple[str, ...]  # one at least; an image that two of them name stands twice
    selection: Selection = Selection()

    def check(self, options: StorageOptions = DEFAULT_OPTIONS) -> None:
        """Raise DinoiddError where there is nothing to list: a condition or an input makes no sense.

        The inputs are begun, no more: one that is misspelt should not be told after the others.
        """
        self.selection.check()
        for uri in self.inputs:
            next(list_images(uri, options))

    def about(self) -> dict[str, Any]:
        """As `manifest.json` and the run's identity have it."""
        first, *others = (shown(normalise(uri)) for uri in self.inputs)
        return {"input": first, "more_inputs": others, "selection": self.selection.to_dict()}

    def differences(self, manifest: ManifestInfo) -> list[str]:
        """`with --sample 100, not 200`, for all in which a manifest is of another origin."""
        told = []
        before = [normalise(uri) for uri in (manifest.input, *manifest.more_inputs)]
        now = [shown(normalise(uri)) for uri in self.inputs]
        if before != now:
            told.append(f"from {' '.join(before)}, not from {' '.join(now)}")
        old, new = manifest.selection, self.selection.to_dict()
        for name in ("where", "sample", "sample_seed"):
            if old.get(name) != new.get(name):
                was, now_ = (repr(v[name]) if name in v else "none" for v in (old, new))
                told.append(f"with --{name.replace('_', '-')} {was}, not {now_}")
        return told


def index_origin(
    origin: Origin,
    output: Store,
    options: StorageOptions = DEFAULT_OPTIONS,
    progress: Callable[[int], None] | None = None,
) -> ManifestInfo:
    """List the inputs into `OUTPUT/manifest/`, in place of a manifest that is there already.

    `options` say where the inputs are; `progress` is told the images so far, now and then. Raises
    ConfigError, InputError or StorageError; a part of a manifest that this leaves counts as none.
    """
    origin.selection.check()
    if len(origin.inputs) > 1:
        origin.check(options)
    counts: Counter[str] = Counter()
    listed = Listed()
    everything = listed.counted(listed_images(origin, options, counts))
    drawn = origin.selection.sample is not None  # then everything is listed before any is written

    def about() -> dict[str, Any]:
        found = {"listed": listed.rows, "listed_bytes": listed.bytes}
        told = origin.about() | (found if origin.selection != Selection() else {})
        return {name: value for name, value in told.items() if name != "input"}

    return write_manifest(
        output.child(FOLDER),
        select_images(everything, origin.selection, progress),
        input_uri=origin.inputs[0],
        counts=counts,
        progress=None if drawn else progress,
        about=about,
    )


def listed_images(
    origin: Origin, options: StorageOptions, counts: Counter[str]
) -> Iterator[ObjectInfo]:
    """All images of the inputs, before any selection; `counts` is of what is left out, by suffix."""
    for uri in origin.inputs:
        yield from list_images(uri, options, counts=counts)
