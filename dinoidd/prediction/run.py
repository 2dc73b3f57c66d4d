"""Many images, one folder each: read ahead in threads, segmented in batches, written in threads."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from dinoidd.ahead import ahead, batches
from dinoidd.data.listing import list_images
from dinoidd.errors import DinoiddError, ImageError, InputError, StorageError
from dinoidd.prediction.folder import write_folder
from dinoidd.prediction.inputs import InputImage
from dinoidd.prediction.naming import FolderNames, folders_below
from dinoidd.prediction.segmentation import Segmentation
from dinoidd.segmenter import Segmenter
from dinoidd.storage import StorageOptions, normalise

_READERS, _WRITERS = 8, 2  # threads: readers wait for storage, writers compress


@dataclass(frozen=True, kw_only=True)
class ListedImage:
    """An image and the folders between what the user named and it."""

    uri: str
    below: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an image: its folder, or why there is none."""

    uri: str
    folder: Path | None = None
    error_kind: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class _Job:
    listed: ListedImage
    work: InputImage | Segmentation | ImageError | StorageError
    folder: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What the arguments name, each image once."""

    images: list[ListedImage]
    left_out: int  # images inside the output folder
    problems: list[str]  # a sentence for each argument that is not there, or holds no image


def list_arguments(arguments: Sequence[str], output: Path, options: StorageOptions) -> Listing:
    """The images that the arguments name; an argument that cannot be listed does not stop the rest.

    Raises:
        InputError: there is not one image.
    """
    inside = f"{normalise(str(output))}/"
    found: dict[str, ListedImage] = {}
    left_out, problems = 0, []
    for argument in arguments:
        try:
            for info in list_images(argument, options):
                if info.uri.startswith(inside):
                    left_out += 1
                elif info.uri not in found:
                    below = tuple(folders_below(info.uri, argument))
                    found[info.uri] = ListedImage(uri=info.uri, below=below)
        except (InputError, StorageError) as error:
            problems.append(str(error))
    if not found and problems:
        raise InputError("; ".join(problems))
    if not found:
        raise InputError(
            f"all {left_out:,} images named are inside --output {output}, where the results go: "
            "choose another --output"
        )
    return Listing(images=list(found.values()), left_out=left_out, problems=problems)


def predict_images(
    segmenter: Segmenter, images: Iterable[ListedImage], output: Path
) -> Iterator[Outcome]:
    """Segment the images and write their folders below `output`, in order.

    A broken image is an outcome with its reason; it does not stop the rest.

    Raises:
        OutputError: a folder cannot be written.
    """
    names = FolderNames(output)
    with ThreadPoolExecutor(_READERS) as readers, ThreadPoolExecutor(_WRITERS) as writers:

        def read(listed: ListedImage) -> _Job:
            return _Job(listed, _read(segmenter, listed))

        read_jobs = ahead(readers, read, images, 2 * segmenter.batch_size)
        yield from ahead(writers, _write, _segmented(segmenter, read_jobs, names), 2 * _WRITERS)


def _read(segmenter: Segmenter, listed: ListedImage) -> InputImage | ImageError | StorageError:
    try:
        return segmenter.read(listed.uri)
    except (ImageError, StorageError) as error:
        return error
    except Exception as error:  # of a decoder's bug; one image must not stop the rest
        return ImageError("crashed", f"{type(error).__name__} while it was decoded: {error}")


def _segmented(segmenter: Segmenter, jobs: Iterable[_Job], names: FolderNames) -> Iterator[_Job]:
    for batch in batches(jobs, segmenter.batch_size):
        results = iter(segmenter.segment([j.work for j in batch if isinstance(j.work, InputImage)]))
        for job in batch:
            if isinstance(job.work, InputImage):
                job = replace(job, work=next(results))
            if isinstance(job.work, Segmentation):
                folder = names.claim(job.listed.uri, list(job.listed.below))
                job = replace(job, folder=folder)
            yield job


def _write(job: _Job) -> Outcome:
    if job.folder is None or not isinstance(job.work, Segmentation):
        assert isinstance(job.work, DinoiddError)
        return Outcome(uri=job.listed.uri, error_kind=job.work.kind, error=str(job.work))
    write_folder(job.folder, job.work.write_files)
    return Outcome(uri=job.listed.uri, folder=job.folder)
