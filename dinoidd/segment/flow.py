"""Where the pieces of a run are, as its driver sees them: in which stage, running or waiting.

Ray Data tells nobody outside; a callback keeps hold of the execution, whose counts are read now and
then. It is held weakly, and there is one at a time in a process.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.operators.map_operator import MapOperator

from dinoidd.segment.pieces import is_source

STAGES = ("read", "model", "write")


@dataclass(frozen=True, kw_only=True)
class InStage:
    """Pieces of work, counted."""

    running: int  # of the model: with an actor, the ones that wait there included
    waiting: int  # until the stage has room
    finished: int
    bytes: int = 0  # that it has put into the object store
    actors: int = 0  # of the model that work


class Flow(ExecutionCallback):
    """Keeps hold of what this process executes."""

    _executor: ClassVar[Callable[[], Any]] = lambda: None
    last: ClassVar[dict[str, InStage]] = {}  # of the last run that ended, at its end

    def before_execution_starts(self, executor: Any) -> None:
        Flow._executor, Flow.last = weakref.ref(executor), {}

    def after_execution_succeeds(self, executor: Any) -> None:
        Flow._executor, Flow.last = lambda: None, _stages(executor)

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        self.after_execution_succeeds(executor)

    @classmethod
    def stages(cls) -> dict[str, InStage]:
        """The stages of the run in progress, in order; empty where there is none."""
        executor = cls._executor()
        return {} if executor is None else _stages(executor)


def _stages(executor: Any) -> dict[str, InStage]:
    found = [
        InStage(
            running=operator.num_active_tasks(),
            waiting=state.total_enqueued_input_blocks(),
            finished=operator.metrics.num_tasks_finished,
            bytes=operator.metrics.bytes_task_outputs_generated,
            actors=operator.get_actor_info().running,
        )
        for operator, state in list((executor._topology or {}).items())
        if isinstance(operator, MapOperator) and not is_source(operator)
    ]
    return dict(zip(STAGES, found, strict=True)) if len(found) == len(STAGES) else {}


def follow(context: DataContext) -> None:
    """Let `Flow` know of what is executed under this context."""
    if Flow not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(Flow)
