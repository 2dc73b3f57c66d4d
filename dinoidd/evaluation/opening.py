"""Ground truth and predictions of any kind, opened, and the class table that both go by."""

from dinoidd.classes import BUILT_IN, IDD, ClassTable
from dinoidd.config import Windows
from dinoidd.errors import ConfigError, InputError
from dinoidd.evaluation.config import EvaluationConfig
from dinoidd.evaluation.label_files import (
    LabelFiles,
    list_label_files,
    prediction_kinds,
    truth_kinds,
)
from dinoidd.evaluation.predictions import FolderPredictions, OutputPredictions, Predictions
from dinoidd.storage import StorageOptions, Store, normalise


def list_truth(config: EvaluationConfig) -> LabelFiles:
    """The label images. Raises InputError with what to do where there are polygons alone."""
    try:
        kinds = truth_kinds(config.table, config.label_suffix)
        return list_label_files(config.ground_truth, config.options, kinds)
    except InputError as error:
        hint = "polygons become label images with `dinoidd data labels`"
        raise InputError(f"the ground truth: {error} ({hint})") from error


def open_predictions(
    uri: str, table: ClassTable | None, options: StorageOptions
) -> tuple[Predictions, ClassTable]:
    """A run of `dinoidd segment`, or a folder of PNGs; and the table to go by.

    Args:
        table: the one that was named; None: the run's own, or IDD's.

    Raises:
        ConfigError: the run has other classes than `table`.
    """
    uri = normalise(uri)  # a worker may have another working directory
    if not _is_output(uri, options):
        table = table or IDD
        kinds = prediction_kinds(table.name)
        return FolderPredictions(uri=uri, options=options, kinds=kinds), table
    output = OutputPredictions(uri, options)
    return output, agreed_table(table, output.table, uri)


def open_model(
    checkpoint: str,
    images: str,
    table: ClassTable | None,
    options: StorageOptions,
    *,
    base: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    windows: Windows | None = None,
) -> tuple[Predictions, ClassTable]:
    """The masks that a model draws of the images below a folder; and the table to go by.

    Args:
        base: of a checkpoint of `train`, the file that it was trained on; None: where that was.
        device: `cuda`, `cpu`, or `auto`: the GPU where there is one.
        dtype: see `pick_dtype`.
        windows: that slide over the images; None: whole images.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        ConfigError: the model has other classes than `table`.
    """
    from dinoidd.evaluation.model_predictions import ModelPredictions  # imports torch
    from dinoidd.inference.source import ModelSource

    source = ModelSource(
        checkpoint=normalise(checkpoint),
        base=None if base is None else normalise(base),
        dtype=dtype,
        storage=options,
    ).settled(device)
    model = ModelPredictions(
        uri=normalise(images), source=source, device=device, windows=windows, options=options
    )
    return model, agreed_table(table, model.table, checkpoint)


def agreed_table(named: ClassTable | None, of_run: ClassTable, place: str) -> ClassTable:
    """The table that was named, if the run has its classes, or the run's own.

    A run stores a table's raw values only if it has some: without any, the run's is the built-in one
    that it equals. Label images are never taken for class ids because nothing else is known.

    Raises:
        ConfigError: the named table has other classes, or none was named and the run's does not say how
            label images are read.
    """
    if named is None:
        if of_run.raw is not None:
            return of_run
        if BUILT_IN.get(of_run.name) == of_run:
            return BUILT_IN[of_run.name]
        raise ConfigError(
            f"the class table '{of_run.name}' that {place} was made with does not say what the raw "
            "values of label images mean: give its file with --classes FILE.json (with 'values', or "
            "without any where label images hold class ids)"
        )
    if named.names != of_run.names:
        raise ConfigError(
            f"the classes of {place} ('{of_run.name}') are not those of --classes '{named.name}': "
            f"{_difference(named.names, of_run.names)}; without --classes the run's own table counts"
        )
    return named


def _difference(ours: list[str], theirs: list[str]) -> str:
    if len(ours) != len(theirs):
        return f"{len(theirs)} classes, not {len(ours)}"
    index = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    return f"class {index} is '{theirs[index]}', not '{ours[index]}'"


def _is_output(uri: str, options: StorageOptions) -> bool:
    store = Store.open(uri, options)
    names = store.child("images").names()
    return store.exists("run.json") or any(name.endswith(".parquet") for name in names)
