"""Points are the same wherever they are drawn."""

import os
import subprocess
import sys
from dataclasses import replace

import torch
from training_runs import LOSS

from dinoidd.training.key_bytes import key_bytes
from dinoidd.training.points import draw_points
from dinoidd.training.targets import Targets

KNOWN = (0.9758967, 0.8242748)
PROGRAM = """
from dinoidd.training.config import LossConfig
from dinoidd.training.points import draw_points
import torch
torch.manual_seed(5); torch.rand(3)
points = draw_points(LossConfig(points=128), 7, "train/0/001", 2)
print(points.matching_P2[0].tolist(), points.uniform_U2[-1].tolist())
"""


def test_points__same_in_another_process() -> None:
    points = draw_points(LOSS, 7, "train/0/001", 2)
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    there = subprocess.run(command, capture_output=True, text=True)
    here = f"{points.matching_P2[0].tolist()} {points.uniform_U2[-1].tolist()}"
    assert there.stdout.strip() == here, there.stderr


def test_points__known_values() -> None:
    """Caches are kept for long: another draw would make them stale without anyone knowing."""
    points = draw_points(LOSS, 7, "train/0/001", 2)
    torch.testing.assert_close(points.matching_P2[0], torch.tensor(KNOWN), rtol=0, atol=1e-6)


def test_points__seed_key_and_view_matter() -> None:
    drawn = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "a", 0)]
    *others, again = (draw_points(LOSS, *each).matching_P2 for each in drawn)
    assert [bool((o == again).all()) for o in others] == [True, False, False, False]


def test_points__name_that_is_not_utf8() -> None:
    name = os.fsdecode(b"train/0/caf\xe9")
    assert key_bytes(name) == b"train/0/caf\xe9"
    points, other = (draw_points(LOSS, 0, key, 0) for key in (name, "train/0/caf"))
    assert not torch.equal(points.matching_P2, other.matching_P2)


def test_points__counts() -> None:
    points = draw_points(replace(LOSS, points=100, oversample=2.5, uncertain_share=0.7), 0, "a", 0)
    assert points.matching_P2.shape == (100, 2)
    assert points.candidates_N2.shape == (250, 2)
    assert points.uniform_U2.shape == (30, 2)
    for part in (points.matching_P2, points.candidates_N2, points.uniform_U2):
        assert part.dtype == torch.float32
        assert part.min() >= 0
        assert part.max() < 1


def test_points__the_pixel_loss_has_the_first_of_them_alone() -> None:
    all_kinds, pixel = (
        draw_points(replace(LOSS, kind=kind), 7, "train/0/001", 2) for kind in ("set", "pixel")
    )
    assert torch.equal(pixel.matching_P2, all_kinds.matching_P2)
    assert (len(pixel.candidates_N2), len(pixel.uniform_U2)) == (0, 0)


def test_targets__nearest_label_and_present_classes() -> None:
    labels_SS = torch.tensor([[3, 1], [255, 3]], dtype=torch.uint8)
    targets = Targets(labels_SS, classes=4)
    assert targets.classes_G.tolist() == [1, 3]
    points = torch.tensor([[0.2, 0.49], [0.51, 0.1], [0.0, 0.99], [1.0, 1.0]])
    assert targets.at(points).tolist() == [3, 1, 255, 3]
