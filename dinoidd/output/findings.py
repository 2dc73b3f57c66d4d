"""What a check found: a few sentences of every kind, and how many there are."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

EXAMPLES = 3  # sentences of a kind; a broken file would give thousands that say the same


@dataclass
class Findings:
    """Differences, by kind, in the order in which kinds were met first."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, sentence: str) -> None:
        self.add_rows(kind, np.zeros(1, np.int64), lambda _: sentence)

    def add_rows(self, kind: str, rows: np.ndarray, sentence: Callable[[int], str]) -> None:
        """One difference for each of `rows`; `sentence` is asked for the first ones only."""
        if not len(rows):
            return
        self.counts[kind] = self.counts.get(kind, 0) + len(rows)
        examples = self.examples.setdefault(kind, [])
        examples.extend(sentence(int(row)) for row in rows[: EXAMPLES - len(examples)])

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def sentences(self) -> list[str]:
        """The examples; a kind's last one tells how many more there are."""
        lines = []
        for kind, examples in self.examples.items():
            more = self.counts[kind] - len(examples)
            lines += examples
            if more:
                lines.append(f"... and {more:,} more like this ({kind})")
        return lines
