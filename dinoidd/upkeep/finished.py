"""The finished run that something is done to."""

from dinoidd.errors import OutputError
from dinoidd.output.reader import RETRY, RETRY_STATE
from dinoidd.segment.merging import finished_files
from dinoidd.segment.preparation import IMAGES, refuse_half_compacted
from dinoidd.segment.run_record import SUCCESS, RunRecord, read_record
from dinoidd.segment.tally import Tally, total
from dinoidd.storage import Store


def known_run(output: Store) -> RunRecord:
    """The record of a run, finished or not. Raises OutputError where there is none."""
    record = read_record(output)
    if record is None:
        raise OutputError(
            f"there is no run in {output.uri}: give the folder that was --output of "
            "`dinoidd segment`"
        )
    return record


def refuse_unfinished(output: Store) -> None:
    """Raise OutputError where a run, or a compaction of it, has not ended."""
    refuse_half_compacted(output)
    if not output.exists(SUCCESS):
        raise OutputError(
            f"the run in {output.uri} is not finished (no _SUCCESS): run its `dinoidd segment` "
            "command again first"
        )


def refuse_half_retried(output: Store) -> None:
    """Raise OutputError where a retry has not ended."""
    if output.child(RETRY).exists(RETRY_STATE):
        raise OutputError(
            f"{output.uri} is in the middle of a retry: run `dinoidd retry` on it again first, "
            "which finishes that"
        )


def tally_of(output: Store, record: RunRecord) -> Tally:
    """What the files of `images/` say together.

    Raises:
        OutputError: they do not hold as many rows as the run.
    """
    files = finished_files(record.layout, output.child(IMAGES), record.run_id)
    tally = total(files.values())
    if tally.images != record.layout.rows:
        raise OutputError(
            f"{output.uri} has {tally.images:,} rows of this run, not {record.layout.rows:,}: files "
            "were removed or replaced; `dinoidd verify` says which images have none"
        )
    return tally
