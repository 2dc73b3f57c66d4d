"""The classifier that a cached training begins with: nobody loads the network for it."""

import tempfile
from pathlib import Path

from dinoidd.checkpoint.base import Base
from dinoidd.checkpoint.cache import local_checkpoint
from dinoidd.checkpoint.file import read_local_header
from dinoidd.checkpoint.trained import (
    Trained,
    TrainedInfo,
    load_trained_state,
    read_trained_info,
    save_trained,
)
from dinoidd.models import Segmenter, meta_segmenter
from dinoidd.train.cache import HEAD
from dinoidd.train.plan import Plan
from dinoidd.training.head import ClassifierHead
from dinoidd.training.parameters import select

_PREFIXES = ("query_decoder.classifier.", "query_decoder.no_object.")


def write_head(plan: Plan, model: Segmenter, base: Base) -> None:
    """Keep the base's classifier in the cache. Every actor writes the same file."""
    state = {n: t for n, t in model.state_dict().items() if n.startswith(_PREFIXES)}
    info = TrainedInfo(config=model.config, table=plan.table, base=base)
    with tempfile.TemporaryDirectory(prefix="dinoidd-") as folder:
        local = Path(folder) / HEAD
        save_trained(Trained(info=info, tensors=state), local)
        plan.cache.upload(local, HEAD)


def read_head(plan: Plan) -> tuple[ClassifierHead, Base]:
    """The classifier, ready to be trained, on the CPU; and what it was taken from."""
    path = Path(local_checkpoint(plan.cache.uri_of(HEAD), plan.options))
    info = read_trained_info(read_local_header(path), str(path))
    tensors = load_trained_state(path, info).tensors
    body = meta_segmenter(info.config)  # of which the head alone gets weights
    for prefix in _PREFIXES:
        part = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        body.get_submodule(prefix[:-1]).load_state_dict(part, assign=True)
    select(body, plan.config)
    return ClassifierHead(body), info.base
