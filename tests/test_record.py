"""What a training writes down: read back with the tools that people use."""

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dinoidd.classes import BUILT_IN, ClassTable
from dinoidd.errors import ConfigError, OutputError
from dinoidd.metrics.iou import iou, mean_of_present, pixel_accuracy, tally
from dinoidd.output.draw import VOID
from dinoidd.storage import Store
from dinoidd.training.config import TrainConfig
from dinoidd.training.curves import make_curves
from dinoidd.training.epoch_picture import draw_picture
from dinoidd.training.metrics_file import epoch_row
from dinoidd.training.progress import Progress
from dinoidd.training.record import RunRecorder
from dinoidd.training.records import EpochRecord, Picture, StepRecord

CAMVID = BUILT_IN["camvid"]
STEPS = 5  # an epoch
LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \| Epoch (\d+)/4 \| Train Loss: ([\d.]+|nan) \| "
    r"Val Loss: ([\d.]+|nan) \| IoU: ([\d.]+|nan)% \| Best: ([\d.]+|nan)% \(epoch (\d+)\) \| "
    r"Accuracy: [\d.]+% \| LR: \d\.\d\de[-+]\d\d \| [\d.]+ images/s \| \w+ \| \w+ left"
)


def config_of(output: Store, **changes) -> TrainConfig:
    values = {"data": "/data/camvid", "preset": "tiny", "epochs": 4, "output": output.uri}
    return TrainConfig(**(values | changes))


def recorder_of(output: Store, *, epoch: int = 0, **changes) -> RunRecorder:
    return RunRecorder(
        config_of(output, **changes),
        CAMVID,
        output,
        steps_per_epoch=STEPS,
        epoch=epoch,
        step=epoch * STEPS,
        interactive=False,
    )


def confusion_of(epoch: int, table: ClassTable) -> np.ndarray:
    """The last class is nowhere; the rest gets better."""
    classes, draw = len(table), np.random.default_rng(epoch)
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    matrix[: classes - 1, : classes - 1] = draw.integers(0, 100, (classes - 1, classes - 1))
    index = np.arange(classes - 1)
    matrix[index, index] += 400 * epoch + 50 * index
    return matrix


def picture() -> Picture:
    rows = np.repeat(np.arange(64, dtype=np.uint8)[:, None], 64, axis=1)
    truth = (rows // 8).astype(np.uint8)
    truth[:6] = 255
    image = np.stack([rows * 4, 255 - rows * 4, rows.T * 4], axis=-1)
    return Picture(
        key="val/0/007", image_SS3=image, truth_SS=truth, prediction_SS=(rows.T // 6) % 11
    )


def epoch_record(epoch: int, *, train_loss: float = 0.0) -> EpochRecord:
    matrix = confusion_of(epoch, CAMVID)
    counts = tally(matrix, len(CAMVID))
    return EpochRecord(
        epoch=epoch,
        step=epoch * STEPS,
        train_loss=train_loss or 4 / epoch,
        val_loss=5 / epoch if epoch != 2 else float("nan"),
        confusion=matrix,
        iou_K=iou(counts),
        miou=float(mean_of_present(iou(counts))),
        pixel_accuracy=float(pixel_accuracy(counts)),
        learning_rate=1e-4 * (1 - epoch / 4),
        seconds=75.0,
        train_seconds=60.0,
        images_per_second=2.4,
        data_wait_share=0.05,
        peak_memory_bytes=3 << 30,
        best_epoch=epoch,
        best_miou=float(mean_of_present(iou(counts))),
        parts={"class": 1.0},
        pictures=[picture()],
    )


def step_record(step: int, loss: float | None = None) -> StepRecord:
    return StepRecord(
        step=step,
        epoch=(step - 1) // STEPS + 1,
        loss=4 / step if loss is None else loss,
        parts={"class": 1.0, "mask": 0.5},
        learning_rate=1e-4,
        grad_norm=2.0,
        images_per_second=2.4,
        data_wait_share=0.05,
    )


def run_epochs(recorder: RunRecorder, first: int, last: int, **changes) -> None:
    for epoch in range(first, last + 1):
        for step in range((epoch - 1) * STEPS + 1, epoch * STEPS + 1):
            recorder.step(step_record(step))
        recorder.epoch(epoch_record(epoch, **changes))


def events_of(output: Store, tmp_path: Path) -> EventAccumulator:
    """All the event files of an output, as TensorBoard reads them."""
    folder = tmp_path / "events"
    folder.mkdir(exist_ok=True)
    for name in output.child("tensorboard").names():
        (folder / name).write_bytes(output.child("tensorboard").read_bytes(name))
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def rows_of(output: Store) -> list[dict]:
    return [json.loads(line) for line in output.read_bytes("metrics.jsonl").splitlines()]


def test_recorder__everything_is_there_to_be_read(store: Store, tmp_path: Path) -> None:
    recorder = recorder_of(store)
    run_epochs(recorder, 1, 2)
    recorder.close()
    events = events_of(store, tmp_path)
    losses = [(e.step, round(e.value, 4)) for e in events.Scalars("train/loss")]
    assert losses == [(step, round(4 / step, 4)) for step in range(1, 11)]
    scalars = set(events.Tags()["scalars"])
    assert scalars >= {
        *("train/learning_rate", "train/grad_norm", "train/loss_class", "train/loss_mask"),
        *("speed/images_per_second", "speed/data_wait_share", "speed/memory_bytes"),
        *("val/mIoU", "val/pixel_accuracy", "iou/road", "iou/sky"),
    }
    assert f"iou/{CAMVID.names[-1]}" not in scalars  # absent
    assert [e.step for e in events.Scalars("val/loss")] == [5]  # the second was not a number
    assert set(events.Tags()["images"]) == {"confusion", "prediction/val/0/007"}
    shown = events.Images("prediction/val/0/007")
    assert [e.step for e in shown] == [5, 10]
    assert shown[0].width == 3 * 320 + 12
    with Image.open(io.BytesIO(store.read_bytes("curves.png"))) as page:
        assert page.size == (1400, 900)


def test_recorder__curves_are_drawn_now_and_then_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, drawn = [100.0], []
    monkeypatch.setattr("dinoidd.training.record.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(
        "dinoidd.training.record.write_curves", lambda rows, *_: drawn.append(len(rows))
    )
    recorder = recorder_of(Store.open(str(tmp_path)))
    for epoch, now in enumerate((110.0, 119.0, 121.0, 130.0), 1):
        clock[0] = now
        recorder.epoch(epoch_record(epoch))
    assert drawn == [3]
    recorder.close()
    assert drawn == [3, 4]
    recorder_of(Store.open(str(tmp_path)), epoch=4).close()
    assert drawn == [3, 4]  # nothing new


def test_curves__texts_stay_inside_their_axes() -> None:
    """Beside the frame of the left charts stand the names of classes."""
    rows = [epoch_row(epoch_record(epoch), CAMVID) for epoch in range(1, 61)]
    figure = make_curves(rows, CAMVID, "a title")
    figure.canvas.draw()
    charts = figure.axes[:3]
    assert not any(axes.texts for axes in charts)
    shares = charts[1].get_legend()
    best = 100 * rows[-1]["miou"]
    assert [text.get_text() for text in shares.get_texts()] == [
        f"mean IoU, best {best:.2f} % (epoch 60)",
        "pixel accuracy",
    ]
    ticks = [int(tick) for tick in charts[0].get_xticks() if 1 <= tick <= 60]
    assert ticks == [10, 20, 30, 40, 50, 60]
    rates = [label.get_text() for label in charts[2].get_yticklabels()]
    assert all(float(text.replace("\u2212", "-")) < 1e-3 for text in rates)
    assert charts[2].yaxis.get_offset_text().get_text() == ""


def test_picture__void_is_the_grey_that_it_is_elsewhere() -> None:
    drawn = draw_picture(picture(), CAMVID)
    truth = (320 + 6 + 160, 24 + 5)  # in the rows of void, at the top of the second panel
    assert drawn.getpixel(truth) == VOID
    assert drawn.crop((0, 24 + 320, *drawn.size)).getcolors(1 << 16) is not None
    legend = {color for _, color in drawn.crop((0, 24 + 320, *drawn.size)).getcolors(1 << 16)}
    assert VOID in legend


def test_progress__the_first_step_has_no_speed() -> None:
    progress = Progress(steps=20, done=0, epochs=4, interactive=False)
    first = replace(step_record(1), images_per_second=float("nan"))
    assert re.search(r"\(5\.0%\), loss 4\.0000, \w+ left$", progress.line(first))


def test_recorder__log_lines_are_found_by_grep(tmp_path: Path) -> None:
    output = Store.open(str(tmp_path))
    recorder = recorder_of(output)
    run_epochs(recorder, 1, 2)
    recorder.close()
    first, *lines = (tmp_path / "training.log").read_text().splitlines()
    assert first.partition(" - ")[2] == (
        "dinoidd 0.1.0: classifier of tiny on camvid, 4 epochs of 5 steps of 8 images, learning rate "
        "0.0001, set loss, seed 0"
    )
    matches = [LINE.fullmatch(line) for line in lines]
    assert all(matches), lines
    told = [match.groups() for match in matches if match]
    record = epoch_record(2)
    best = f"{100 * record.miou:.2f}"
    assert told[1] == ("2", "2.0000", "nan", best, best, "2")


def test_recorder__metrics_are_plain_json(tmp_path: Path) -> None:
    output = Store.open(str(tmp_path))
    recorder = recorder_of(output)
    run_epochs(recorder, 1, 2)
    rows, record = rows_of(output), epoch_record(2)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["val_loss"] is None
    assert rows[1]["absent"] == [CAMVID.names[-1]]
    assert rows[1]["iou"][CAMVID.names[0]] == record.iou_K[0]
    assert rows[1]["confusion"] == record.confusion.tolist()
    assert rows[1]["miou"] == record.miou
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    recorder.close()


def test_recorder__an_epoch_done_twice_appears_once(
    new_store: Callable[[], Store], tmp_path: Path
) -> None:
    """The process died in epoch 3, after the checkpoint of epoch 1: 2 and 3 are done again."""
    output = new_store()
    crashed = recorder_of(output)
    run_epochs(crashed, 1, 2)
    for step in (11, 12):
        crashed.step(step_record(step, loss=99.0))
    crashed._events.close()  # what the disk has of it
    resumed = recorder_of(output, epoch=1)
    run_epochs(resumed, 2, 4, train_loss=0.5)
    resumed.close()
    events = events_of(output, tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("train/epoch_loss")] == [
        *((5, 4.0), (10, 0.5), (15, 0.5), (20, 0.5))
    ]
    assert [e.step for e in events.Scalars("train/loss")] == list(range(1, 21))
    assert max(e.value for e in events.Scalars("train/loss")) == 4.0
    assert [e.step for e in events.Images("confusion")] == [5, 10, 15, 20]
    assert [(r["epoch"], r["train_loss"]) for r in rows_of(output)] == [
        *((1, 4.0), (2, 0.5), (3, 0.5), (4, 0.5))
    ]
    lines = output.read_bytes("training.log").decode().splitlines()
    epochs = [match[1] for line in lines if (match := LINE.fullmatch(line))]
    assert epochs == ["1", "2", "3", "4"]
    assert [line.partition(" - ")[2] for line in lines if " - " in line][1:] == [
        "resumed after epoch 1"
    ]


def test_recorder__foreign_metrics_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("loss,0.3\n")
    with pytest.raises(
        OutputError, match=r"metrics.jsonl is not of a training run .*: choose anoth"
    ):
        recorder_of(Store.open(str(tmp_path)))


def test_recorder__begun_anew_forgets_an_earlier_run(tmp_path: Path) -> None:
    output = Store.open(str(tmp_path))
    run_epochs(recorder_of(output), 1, 2)
    recorder_of(output).close()
    assert rows_of(output) == []
    assert len((tmp_path / "training.log").read_text().splitlines()) == 2  # both beginnings


def test_progress__line_has_time_left_over_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((100.0, 130.0))
    monkeypatch.setattr("dinoidd.training.progress.time.monotonic", lambda: next(clock))
    progress = Progress(steps=2_000, done=200, epochs=20, interactive=False)
    assert progress.line(step_record(260)).endswith("2.4 images/s, 14m30s left")
    assert step_record(260).epoch == 52


def test_progress__bar(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(steps=20, done=5, epochs=4, interactive=True)
    for step in range(6, 11):
        progress.step(step_record(step))
    progress.say("a line")
    progress.close()
    told = capsys.readouterr().err
    assert "epoch 2/4" in told
    assert "10/20" in told
    assert "loss 0.4000, 2.4 images/s" in told
    assert "a line\n" in told


def test_mlflow__epochs_are_sent_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri, output = (tmp_path / "mlruns").as_uri(), Store.open(str(tmp_path / "out"))
    recorder = recorder_of(output, mlflow=uri)
    run_epochs(recorder, 1, 2)
    resumed = recorder_of(output, epoch=1, mlflow=uri)
    run_epochs(resumed, 2, 3)
    resumed.close()
    client = mlflow.MlflowClient(tracking_uri=uri)
    run_id = json.loads((tmp_path / "out" / "mlflow.json").read_text())["run"]
    run = client.get_run(run_id)
    history = client.get_metric_history(run_id, "miou")
    assert [metric.step for metric in history] == [1, 2, 3]
    assert run.data.params["optimizer.learning_rate"] == "0.0001"
    assert run.info.status == "FINISHED"


def test_mlflow__not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(ConfigError) as raised:
        recorder_of(Store.open(str(tmp_path)), mlflow="http://host:5000")
    assert str(raised.value) == (
        "mlflow=http://host:5000: mlflow is not installed: pip install 'dinoidd[mlflow]', or leave "
        "mlflow out"
    )
