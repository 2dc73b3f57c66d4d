"""How a cache's rows are cut into files, and how the files are numbered as pieces of work."""

from dataclasses import dataclass

KINDS = ("train", "val")  # of rows, and the folders of their files


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One kind's rows, image by image and view by view, and how they are cut into files."""

    images: int
    views: int
    rows_per_file: int

    @property
    def rows(self) -> int:
        return self.images * self.views

    @property
    def files(self) -> int:
        return -(-self.rows // self.rows_per_file)

    def range_of(self, file: int) -> range:
        """The rows of a file."""
        start = file * self.rows_per_file
        return range(start, min(start + self.rows_per_file, self.rows))

    def name_of(self, file: int) -> str:
        rows = self.range_of(file)
        return f"rows-{rows.start:09d}-{rows.stop:09d}.arrow"

    def place_of(self, row: int) -> tuple[int, int]:
        """The file of a row, and the row in it."""
        return divmod(row, self.rows_per_file)


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """The files of a cache, numbered: those of training, then those of validation."""

    rows: dict[str, Rows]

    def of(self, piece: int) -> tuple[str, int]:
        """The kind of a piece, and the file of that kind."""
        first = self.rows[KINDS[0]].files
        return (KINDS[0], piece) if piece < first else (KINDS[1], piece - first)

    def name_of(self, piece: int) -> tuple[str, str]:
        """Its folder and file name."""
        kind, file = self.of(piece)
        return kind, self.rows[kind].name_of(file)

    def rows_of(self, piece: int) -> range:
        kind, file = self.of(piece)
        return self.rows[kind].range_of(file)

    def __len__(self) -> int:
        return sum(rows.files for rows in self.rows.values())
