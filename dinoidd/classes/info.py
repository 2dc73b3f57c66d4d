"""One class of a data set: its name and its colour."""

import dataclasses
import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ClassInfo:
    """One class: its display name and its colour (red, green, blue; 0..255).

    `official` is the name that the data set's authors use where the display name differs. It takes no
    part in comparisons and is not stored with a run.
    """

    name: str
    color: tuple[int, int, int]
    official: str | None = dataclasses.field(default=None, compare=False)

    @property
    def field(self) -> str:
        """The name as a Parquet field: `traffic light` is `traffic_light`."""
        return re.sub(r"\W+", "_", self.name.strip().lower()).strip("_")
