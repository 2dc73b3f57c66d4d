"""A run's counts of tries, kept in a Ray actor that all its processes ask."""

import contextlib
import os
import sys
import uuid

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dinoidd.segment.tries import Tries


class RemoteTries:
    """Tries in an actor on the driver's node, which no lost node takes along. Picklable."""

    def __init__(self, image_timeout: float | None) -> None:
        self.token = uuid.uuid4().hex
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self._actor = (
            ray.remote(Tries)
            .options(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)
            .remote(image_timeout)
        )

    def begin(self, stage: str, chunk: int, host: str, hung: bool) -> int:
        return ray.get(self._actor.begin.remote(stage, chunk, host, hung))

    def touch(self, stage: str, chunk: int, image: int | None) -> dict[str, str]:
        return ray.get(self._actor.touch.remote(stage, chunk, image))

    def end(self, stage: str, chunk: int) -> None:
        self._actor.end.remote(stage, chunk)  # nobody waits for it

    def abandon(self, stage: str, chunk: int, error: Exception) -> None:
        """End this process, so that Ray starts another."""
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        ray.get(self._actor.blame.remote(stage, chunk, reason))
        print(f"this process ends, to be started anew: {reason}", file=sys.stderr, flush=True)
        os._exit(1)

    def load(self) -> int:
        return ray.get(self._actor.load.remote(_who()))

    def loaded(self) -> None:
        self._actor.loaded.remote(_who())

    def close(self) -> None:
        """End the actor. What ended the run meanwhile, as the loss of the cluster, is told elsewhere."""
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self._actor)


def _who() -> str:
    """The same after a restart."""
    return ray.get_runtime_context().get_actor_id() or ""
