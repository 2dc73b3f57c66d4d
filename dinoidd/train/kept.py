"""What an interrupted run leaves behind, told as it is."""

from dinoidd.errors import StorageError
from dinoidd.interruption import RESUMABLE
from dinoidd.train.cache import SUCCESS
from dinoidd.train.plan import Plan
from dinoidd.train.rows import KINDS
from dinoidd.train.states import LAST


def kept(plan: Plan) -> str:
    """What the same command begins with when it is run again."""
    try:
        return _kept(plan)
    except StorageError:  # no time to find out why
        return RESUMABLE


def _kept(plan: Plan) -> str:
    if plan.output.exists(LAST):
        return RESUMABLE
    if plan.config.uses_cache:
        if plan.cache.exists(SUCCESS):
            return "no epoch is done yet; the cache is kept, and the same command trains from it"
        if any(plan.cache.child(kind).names() for kind in KINDS):
            return "the cache's finished files are kept; run the same command again to resume"
    return "nothing is done yet that could be kept; the same command begins anew"
