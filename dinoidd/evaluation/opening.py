"""Ground truth and predictions of any kind, opened, and the class table that both go by."""

from dinoidd.classes import ClassTable, load_class_table
from dinoidd.errors import ClassTableError, ConfigError, InputError
from dinoidd.evaluation.config import EvaluationConfig
from dinoidd.evaluation.label_files import LabelFiles, list_label_files
from dinoidd.evaluation.predictions import FolderPredictions, OutputPredictions, Predictions
from dinoidd.storage import StorageOptions, Store, normalise


def list_truth(config: EvaluationConfig) -> LabelFiles:
    """The label images. Raises InputError with what to do where there are polygons alone."""
    try:
        return list_label_files(config.ground_truth, config.options, config.label_suffix)
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
        return FolderPredictions(uri, options), table or load_class_table("idd")
    output = OutputPredictions(uri, options)
    return output, agreed_table(table, output.table, uri)


def open_model(
    checkpoint: str, images: str, device: str, table: ClassTable | None, options: StorageOptions
) -> tuple[Predictions, ClassTable]:
    """The masks that a model draws of the images below a folder; and the table to go by.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        ConfigError: the model has other classes than `table`.
    """
    from dinoidd.evaluation.model_predictions import ModelPredictions  # imports torch
    from dinoidd.inference.source import ModelSource

    source = ModelSource(checkpoint=normalise(checkpoint), storage=options)
    model = ModelPredictions(uri=normalise(images), source=source, device=device, options=options)
    return model, agreed_table(table, model.table, checkpoint)


def agreed_table(named: ClassTable | None, of_run: ClassTable, place: str) -> ClassTable:
    """The table that was named, if the run has its classes, or the run's own.

    A run stores names and colours alone: where its table is a built-in one, that one is taken, which
    also knows raw values and levels.
    """
    if named is None:
        try:
            named = load_class_table(of_run.name)
        except ClassTableError:
            return of_run
        return named if named == of_run else of_run
    if named.names != of_run.names:
        raise ConfigError(
            f"the classes of {place} ('{of_run.name}') are not those of --classes '{named.name}': "
            f"{_difference(named.names, of_run.names)}"
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
