"""What training began with."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Base:
    """The weights below the trained ones: a checkpoint's, or those drawn for a preset."""

    weights: str  # sha256 over them; of a checkpoint its own
    checkpoint: str | None = None  # where it was: an absolute path or URL; exactly one of this
    preset: str | None = None  # and this
    seed: int = 0  # of a preset's random weights
    torch: str = ""  # version that drew them

    @property
    def place(self) -> str:
        """For messages."""
        if self.checkpoint is not None:
            return self.checkpoint
        return f"random weights of preset '{self.preset}' (seed {self.seed}, torch {self.torch})"
