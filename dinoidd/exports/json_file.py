"""A JSON object with long lists, written as they come and never held whole."""

import json
import shutil
from pathlib import Path
from typing import Any


class JsonFile:
    """`head` and then the lists, which grow by `append`; `finish` puts the file together."""

    def __init__(self, path: Path, head: dict[str, Any], lists: tuple[str, ...]) -> None:
        self.path, self._head = path, head
        self._parts = {
            name: path.with_suffix(f".{name}").open("w+", encoding="utf-8") for name in lists
        }

    def append(self, name: str, value: dict[str, Any]) -> None:
        """One more entry of a list."""
        part = self._parts[name]
        part.write(("," if part.tell() else "") + "\n" + json.dumps(value, ensure_ascii=False))

    def finish(self) -> Path:
        """The whole file."""
        with self.path.open("w", encoding="utf-8") as out:
            out.write(json.dumps(self._head, ensure_ascii=False).removesuffix("}"))
            for name, part in self._parts.items():
                out.write(f",\n{json.dumps(name)}: [")
                part.seek(0)
                shutil.copyfileobj(part, out)
                part.close()
                out.write("\n]")
            out.write("}\n")
        return self.path
