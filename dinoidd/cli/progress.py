"""Progress on stderr: a bar on a terminal, a line every few seconds otherwise."""

import sys
import time
from types import TracebackType

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Call it with the number of items that are done.

    >>> with Progress(100, "drew", "scenes") as progress:
    ...     progress(7)
    """

    def __init__(self, total: int, done: str, things: str) -> None:
        self.total, self.done, self.things = max(0, total), done, things
        self.last = time.monotonic()
        self.bar = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=self.total, unit=f" {self.things}", desc=self.done)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, done: int) -> None:
        if self.bar is not None:
            self.bar.update(done - self.bar.n)
            return
        now = time.monotonic()
        if now - self.last >= SECONDS_BETWEEN_LINES:
            self.last = now
            self.say(f"{self.done} {done:,} of {self.total:,} {self.things}")

    def of(self, done: int, total: int) -> None:
        """The same where the total is known only after the start."""
        self.total = total
        if self.bar is not None:
            self.bar.total = total
        self(done)

    def say(self, line: str) -> None:
        """A line that does not tear the bar."""
        if self.bar is not None:
            self.bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)
