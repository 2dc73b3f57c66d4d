"""Whether the files of `images/` belong together: one schema, one model, one class table."""

import pyarrow as pa

from dinoidd.classes import ClassTable
from dinoidd.errors import ClassTableError
from dinoidd.output.findings import Findings
from dinoidd.output.schema import (
    METADATA_CLASSES,
    METADATA_FINGERPRINT,
    METADATA_RUN_ID,
    class_table_of,
    images_schema,
)

# What is also in run.json, by its name there.
FILE_METADATA = {METADATA_RUN_ID: "run_id", METADATA_FINGERPRINT: "fingerprint"}
_SAME = {METADATA_CLASSES: "class table", METADATA_FINGERPRINT: "model fingerprint"}


class FileChecks:
    """Compares each file with the first one."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.first: dict[bytes, tuple[str, bytes]] = {}  # by metadata key: file and value
        self.names: dict[str, dict[bytes, bytes]] = {}  # metadata by file

    def check(self, name: str, schema: pa.Schema) -> ClassTable | None:
        """The file's class table, or None where its rows cannot be checked."""
        metadata = schema.metadata or {}
        self.names[name] = {key: metadata.get(key, b"") for key in FILE_METADATA}
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

    def others_than(self, key: bytes, value: str) -> str | None:
        """The first file whose metadata has another value, if there is one."""
        wrong = (n for n, metadata in self.names.items() if metadata.get(key) != value.encode())
        return next(wrong, None)

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
