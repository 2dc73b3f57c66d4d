"""What native code writes to stderr, where Python's own streams cannot hold it back."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_lines(pattern: str) -> Iterator[None]:
    """Leave out the lines that match; the others are written when the block ends.

    Args:
        pattern: regular expression, sought anywhere in a line.
    """
    unwanted = re.compile(pattern.encode())
    with tempfile.TemporaryFile() as kept:
        sys.stderr.flush()
        terminal = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            kept.seek(0)
            for line in kept:
                if not unwanted.search(line):
                    os.write(2, line)
