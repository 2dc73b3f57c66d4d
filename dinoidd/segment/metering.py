"""What a model actor tells of itself while it works; see `metrics` for who listens."""

from typing import Protocol


class Metering(Protocol):
    """Told by the stage that holds the model."""

    def waited(self, seconds: float) -> None:
        """So long it had nothing to do before it got a piece of work."""

    def forwarded(self, images: int) -> None:
        """So many images went through the model at once."""

    def took_memory(self, gpu_bytes: int) -> None:
        """The most that its process has taken of the GPU so far."""


class NoMetering:
    """Nobody listens."""

    def waited(self, seconds: float) -> None: ...
    def forwarded(self, images: int) -> None: ...
    def took_memory(self, gpu_bytes: int) -> None: ...
