"""A coarser view of a class table: which class belongs to which group."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dinoidd.classes.info import ClassInfo


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level of a hierarchy, such as IDD's level 1: `of[c]` is the coarse class of class `c`."""

    name: str
    classes: tuple[ClassInfo, ...]
    of: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> list[str]:
        return [c.name for c in self.classes]

    def sum_matrix(self, confusion_CC: np.ndarray) -> np.ndarray:
        """A confusion matrix of the fine classes as one of the coarse classes; int64 [L, L]."""
        groups_CL = np.equal.outer(self.of, np.arange(len(self))).astype(np.int64)
        return groups_CL.T @ confusion_CC @ groups_CL


def make_level(
    name: str, groups: Sequence[tuple[str, tuple[int, int, int], Sequence[int]]], classes: int
) -> Level:
    """A level from its groups: name, colour, and the class ids that belong to it."""
    of = {member: index for index, (_, _, members) in enumerate(groups) for member in members}
    infos = tuple(ClassInfo(name=group, color=color) for group, color, _ in groups)
    return Level(name=name, classes=infos, of=tuple(of[c] for c in range(classes)))


def level_problems(level: Level, classes: int) -> Iterator[str]:
    """What is wrong with a level of a table of that many classes."""
    where = f"level '{level.name}'"
    if len(level.of) != classes:
        yield f"{where} places {len(level.of)} classes of {classes}"
    for index, group in enumerate(level.of):
        if not 0 <= group < len(level):
            yield f"{where}: class {index} is in group {group} (0 to {len(level) - 1})"
    for group in sorted(set(range(len(level))) - set(level.of)):
        yield f"{where}: '{level.names[group]}' has no members"
