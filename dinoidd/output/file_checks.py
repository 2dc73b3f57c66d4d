"""Whether the files of `images/` belong together: one schema, one model, one class table."""

import pyarrow as pa

from dinoidd.classes import ClassTable
from dinoidd.errors import ClassTableError
from dinoidd.output.findings import Findings
from dinoidd.output.schema import (
    METADATA_CLASSES,
    METADATA_FINGERPRINT,
    class_table_of,
    images_schema,
)

# The run id may differ: a resumed run and `dinoidd retry` are runs of their own.
_SAME = {METADATA_CLASSES: "class table", METADATA_FINGERPRINT: "model fingerprint"}


class FileChecks:
    """Compares each file with the first one."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.first: dict[bytes, tuple[str, bytes]] = {}  # by metadata key: file and value

    def check(self, name: str, schema: pa.Schema) -> ClassTable | None:
        """The file's class table, or None where its rows cannot be checked."""
        metadata = schema.metadata or {}
        for key, what in _SAME.items():
            if key not in metadata:
                self.findings.add("file metadata", f"{name} has no {what} in its metadata")
                continue
            first, value = self.first.setdefault(key, (name, metadata[key]))
            if metadata[key] != value:
                self.findings.add("file metadata", f"{name} has another {what} than {first}")
        if METADATA_CLASSES not in metadata:
            return None
        try:
            table = class_table_of(schema)
        except (ClassTableError, ValueError) as error:
            self.findings.add("file metadata", f"{name} has an unusable class table: {error}")
            return None
        return table if self._has_columns(name, schema, images_schema(table)) else None

    def _has_columns(self, name: str, schema: pa.Schema, expected: pa.Schema) -> bool:
        problems = []
        for column in expected:
            index = schema.get_field_index(column.name)
            if index < 0:
                problems.append(f"{name} has no column {column.name}")
            elif schema.field(index).type != column.type:
                found = schema.field(index).type
                problems.append(f"{name} has column {column.name} as {found}, not {column.type}")
        for problem in problems:
            self.findings.add("columns", problem)
        return not problems
