"""What of this machine goes to the cluster with a job: the code, and nothing that lies beside it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import dinoidd
from dinoidd.errors import ConfigError

CODE = ("dinoidd", "jobs")
LARGEST = 100_000_000  # bytes; more makes every node slow to start
_BUILT = "__pycache__"


@dataclass(frozen=True, kw_only=True)
class Upload:
    """The code of a working directory, and what else of it is named.

    Everything else is excluded by name, so data, models and environments never go along.
    """

    folder: Path
    include: tuple[str, ...] = ()  # files or folders below it

    @classmethod
    def of(cls, folder: str | None, include: list[str], job: str) -> "Upload":
        """Of a folder, or of the one that holds `jobs/JOB.py`: this one, or that of this code.

        Raises:
            ConfigError: there is none, or what is to be included is not in it.
        """
        here, code = Path.cwd(), Path(dinoidd.__file__).parents[1]
        candidates = [Path(folder).resolve()] if folder else [here, code]
        for candidate in candidates:
            if (candidate / "jobs" / f"{job}.py").is_file():
                return cls(folder=candidate, include=_included(candidate, include))
        raise ConfigError(
            f"there is no jobs/{job}.py in {candidates[0]}: give the root of dinoidd's repository "
            "by --working-dir"
        )

    @property
    def excludes(self) -> list[str]:
        """As .gitignore has it: everything at the top, but for what is sent.

        Not by `/*`, which would match the folder itself, as Ray asks for it: `.`.
        """
        names = (*CODE, *self.include)
        kept = [line for name in names for line in (f"!/{name}", f"!/{name}/**")]
        folders = {str(p) for name in self.include for p in PurePosixPath(name).parents}
        opened = [line for f in sorted(folders - {"."}) for line in (f"!/{f}", f"/{f}/*")]
        return ["/[!.]*", "/.?*", *opened, *kept, _BUILT]

    @property
    def runtime_env(self) -> dict[str, Any]:
        return {"working_dir": str(self.folder), "excludes": self.excludes}

    def holds(self, path: str) -> bool:
        """Whether a relative path is among what is sent."""
        wanted = PurePosixPath(path)
        return any(wanted.is_relative_to(name) for name in (*CODE, *self.include))

    def size(self) -> tuple[int, int]:
        """How many files and bytes go up. Raises ConfigError where that is too much."""
        sizes = [path.stat().st_size for path in self.files()]
        if sum(sizes) > LARGEST:
            raise ConfigError(
                f"{sum(sizes):,} bytes would go up with the job, more than {LARGEST:,}: put large "
                "files into the bucket, and leave them out of --include"
            )
        return len(sizes), sum(sizes)

    def files(self) -> Iterator[Path]:
        for name in dict.fromkeys((*CODE, *self.include)):
            top = self.folder / name
            if top.is_file():
                yield top
            for folder, folders, names in os.walk(top):
                folders[:] = [f for f in folders if f != _BUILT]
                yield from (Path(folder, n) for n in names)


def _included(folder: Path, include: list[str]) -> tuple[str, ...]:
    """Relative to the folder. Raises ConfigError."""
    found = []
    for name in include:
        path = Path(os.path.normpath(folder / name))
        if not path.is_relative_to(folder) or path == folder:
            raise ConfigError(f"--include {name}: only what lies below {folder} can go up")
        if not path.exists():
            raise ConfigError(f"--include {name}: there is no such file in {folder}")
        found.append(path.relative_to(folder).as_posix())
    return tuple(found)
