"""Generated street scenes: the image and its label agree, and every class occurs."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from dinoidd.classes import IDD
from dinoidd.data.scenes import bikes, buildings, generate_scene, people, plants, signs, vehicles
from dinoidd.data.scenes import roadside as road
from dinoidd.data.scenes.camera import GROUND, Camera, Label
from dinoidd.data.scenes.canvas import Canvas
from dinoidd.data.scenes.cast import Item, painting_order
from dinoidd.data.scenes.ground import draw_curb, draw_ground, draw_skyline
from dinoidd.data.scenes.light import WEATHERS, choose_light, develop, paint_sky
from dinoidd.data.scenes.street import plan_street
from dinoidd.errors import ConfigError

VOID = 255
L = Label
CAMERA = Camera(
    width=240, height=136, focal=210.0, center_x=118.0, horizon=62.0, altitude=1.6, bend=0.0005
)
# What draws a thing at 12 metres, and the classes that it may give to pixels.
THINGS: dict[str, tuple[Callable, tuple, set[Label]]] = {
    "car": (vehicles.car, (-2.0, 12.0, True), {L.CAR}),
    "car ahead": (vehicles.car, (3.0, 12.0, False), {L.CAR}),
    "autorickshaw": (vehicles.autorickshaw, (-2.0, 12.0, False), {L.AUTORICKSHAW}),
    "bus": (vehicles.bus, (2.0, 12.0, True), {L.BUS}),
    "truck": (vehicles.truck, (-3.0, 12.0, True), {L.TRUCK}),
    "truck ahead": (vehicles.truck, (3.0, 12.0, False), {L.TRUCK}),
    "tractor": (vehicles.tractor, (1.0, 12.0, False), {L.VEHICLE_FALLBACK}),
    "cart": (vehicles.cart, (1.0, 12.0, True), {L.VEHICLE_FALLBACK}),
    "person": (people.person, (1.0, 12.0), {L.PERSON}),
    "cow": (people.cow, (1.0, 12.0), {L.PERSON}),
    "motorcycle": (bikes.motorcycle, (1.0, 8.0, True), {L.MOTORCYCLE, L.RIDER}),
    "parked motorcycle": (bikes.motorcycle, (1.0, 8.0, True, False), {L.MOTORCYCLE}),
    "bicycle": (bikes.bicycle, (1.0, 8.0, False), {L.BICYCLE, L.RIDER}),
    "bicycle across": (bikes.bicycle_across, (1.0, 8.0, True), {L.BICYCLE, L.RIDER}),
    "building": (buildings.building, (5.0, 1, (8.0, 20.0), 9.0), {L.BUILDING, L.BILLBOARD}),
    "tree": (plants.tree, (3.0, 12.0), {L.VEGETATION}),
    "palm": (plants.palm, (3.0, 12.0), {L.VEGETATION}),
    "bushes": (plants.bushes, (3.0, (8.0, 20.0)), {L.VEGETATION}),
    "wall": (road.wall, (-4.0, -1, (8.0, 20.0), 2.0, (180, 100, 80)), {L.WALL}),
    "fence": (road.fence, (-4.0, (8.0, 20.0), 1.6, (120, 120, 120)), {L.FENCE}),
    "guard rail": (road.guard_rail, (-4.0, (8.0, 20.0)), {L.GUARD_RAIL}),
    "lamp post": (road.lamp_post, (3.0, 12.0, 1), {L.POLE}),
    "barrier": (road.barrier, (1.0, 12.0), {L.OBS_STR_BAR_FALLBACK}),
    "bridge": (road.bridge, ((-6.0, 7.0), 30.0), {L.BRIDGE}),
    "sign": (signs.traffic_sign, (2.0, 12.0), {L.TRAFFIC_SIGN, L.POLE}),
    "traffic light": (signs.traffic_light, (3.0, 14.0, 1), {L.TRAFFIC_LIGHT, L.POLE}),
    "billboard": (signs.billboard, (2.0, 20.0, 4.0), {L.BILLBOARD, L.POLE}),
    "gantry": (signs.gantry, ((-6.0, 7.0), 30.0), {L.TRAFFIC_SIGN, L.POLE}),
    "curb": (draw_curb, (-3.0, -1), {L.CURB}),
    "skyline": (draw_skyline, (1.0,), {L.BUILDING, L.VEGETATION}),
}


def rng_of(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def blank_canvas() -> Canvas:
    """A canvas of one colour that nothing is painted in, without a class."""
    backdrop = np.empty((CAMERA.height, CAMERA.width, 4), np.uint8)
    backdrop[:] = (255, 0, 255, VOID)
    return Canvas(CAMERA, WEATHERS[0], backdrop)


@pytest.fixture(scope="module")
def sixty_scenes() -> list[np.ndarray]:
    """Labels of the default data set."""
    return [generate_scene(rng_of(0, i), 480, 270).label for i in range(60)]


def test_label__has_the_names_and_ids_of_the_class_table() -> None:
    assert [label.name.lower() for label in Label] == IDD.fields
    assert [int(label) for label in Label] == list(range(len(IDD)))


@pytest.mark.parametrize("name", THINGS)
@pytest.mark.parametrize("seed", range(4))
def test_thing__relabels_exactly_the_pixels_that_it_paints(name: str, seed: int) -> None:
    draw, where, labels = THINGS[name]
    canvas = blank_canvas()
    draw(canvas, rng_of(seed), *where)
    pixels = canvas.pixels
    repainted = (pixels[..., :3] != (255, 0, 255)).any(axis=-1)
    relabelled = pixels[..., 3] != VOID
    np.testing.assert_array_equal(repainted, relabelled)
    assert relabelled.sum() > 20
    assert set(np.unique(pixels[..., 3][relabelled])) <= labels


def test_ground__relabels_exactly_the_pixels_that_it_paints() -> None:
    for seed in range(4):
        canvas = blank_canvas()
        draw_ground(canvas, rng_of(seed), plan_street(rng_of(seed)))
        repainted = (canvas.pixels[..., :3] != (255, 0, 255)).any(axis=-1)
        np.testing.assert_array_equal(repainted, canvas.pixels[..., 3] != VOID)
        assert set(np.unique(canvas.pixels[..., 3])) <= {*GROUND, L.VEGETATION, VOID}
        assert canvas.pixels[-1, CAMERA.width // 2, 3] == L.ROAD


def test_ring__leaves_what_is_seen_through_it() -> None:
    canvas = blank_canvas()
    canvas.ring(0.0, 1.0, 5.0, 0.8, 0.1, (20, 20, 20), L.BICYCLE)
    u, v = CAMERA.project(0.0, 1.0, 5.0)
    assert canvas.pixels[round(v), round(u), 3] == VOID
    assert canvas.pixels[round(v), round(u + 0.75 * canvas.scale(5.0)), 3] == L.BICYCLE


def test_camera__halves_things_at_twice_the_distance() -> None:
    straight = replace(CAMERA, bend=0.0)
    near = straight.project(1.0, 0.0, 10.0)
    far = straight.project(1.0, 0.0, 20.0)
    assert near[0] - straight.center_x == pytest.approx(2 * (far[0] - straight.center_x))
    assert near[1] - straight.horizon == pytest.approx(2 * (far[1] - straight.horizon))


def test_painting_order__near_things_come_after_what_they_hide() -> None:
    def item(x: tuple[float, float], z: tuple[float, float]) -> Item:
        return Item(x, z, lambda: None)

    facade, bus = item((7, 19), (10, 20)), item((2, 4.5), (6, 17))
    parked, bike = item((5, 6.8), (5, 9.5)), item((1.5, 1.9), (14, 16))
    ahead = item((-1, 1), (40, 44))
    order = list(painting_order([bike, parked, bus, facade, ahead]))
    assert order == [4, 3, 1, 2, 0]  # far ahead, then from the outside in
    assert list(painting_order([])) == []


def test_develop__changes_each_pixel_for_itself_alone() -> None:
    painted = rng_of(1).integers(0, 200, (CAMERA.height, CAMERA.width, 4), dtype=np.uint8)
    painted[..., 3] %= len(IDD)
    light = np.full(painted.shape[:2], 255, np.uint8)
    before = develop(rng_of(2), painted, light, CAMERA)
    painted[70, 90, :3] = 255 - painted[70, 90, :3]
    after = develop(rng_of(2), painted, light, CAMERA)
    changed = np.argwhere((before != after).any(axis=-1))
    np.testing.assert_array_equal(changed, [[70, 90]])


def test_develop__shadows_fall_on_the_ground_only() -> None:
    painted = np.full((CAMERA.height, CAMERA.width, 4), 150, np.uint8)
    painted[..., 3] = L.CAR
    painted[:, 120:, 3] = L.ROAD
    lit = np.full(painted.shape[:2], 255, np.uint8)
    bright = develop(rng_of(2), painted, lit, CAMERA)
    dark = develop(rng_of(2), painted, lit // 2, CAMERA)
    np.testing.assert_array_equal(bright[:, :120], dark[:, :120])
    assert dark[:, 120:].mean() < 0.6 * bright[:, 120:].mean()


def test_sky__fills_the_picture_in_every_weather() -> None:
    for seed, weather in enumerate(WEATHERS):
        sky = paint_sky(rng_of(seed), CAMERA, weather)
        assert (sky[..., 3] == L.SKY).all()
        assert np.ptp(sky[..., :3].mean(axis=(1, 2))) > 5  # a gradient
    assert len({choose_light(rng_of(seed)).tint for seed in range(8)}) == 8


@pytest.mark.parametrize("size", [(64, 64), (480, 270), (200, 320), (1280, 400)])
def test_scene__has_the_asked_size_and_no_void(size: tuple[int, int]) -> None:
    scene = generate_scene(rng_of(5), *size)
    assert scene.image.shape == (size[1], size[0], 3)
    assert scene.label.shape == (size[1], size[0])
    assert scene.image.dtype == scene.label.dtype == np.uint8
    assert scene.label.max() < len(IDD)


def test_scene__same_generator_state_gives_the_same_scene() -> None:
    one, same, other = (generate_scene(rng_of(7, i), 240, 135) for i in (3, 3, 4))
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.label, same.label)
    assert (one.label != other.label).mean() > 0.05


@pytest.mark.parametrize("size", [(63, 270), (480, 0), (480, -5), (9000, 270)])
def test_scene__size_out_of_range(size: tuple[int, int]) -> None:
    message = f"--image-size {size[0]}x{size[1]}: a scene has 64 to 8192 pixels a side"
    with pytest.raises(ConfigError) as caught:
        generate_scene(rng_of(0), *size)
    assert str(caught.value) == message


def test_scene__colours_change_where_the_class_changes() -> None:
    """The label lies on the image exactly: moved by a pixel or two it fits its edges less."""
    shifts = [(0, 0), (1, 0), (-1, 0), (2, 0), (0, 1), (0, -1), (0, 2), (2, 2)]
    contrast = np.zeros(len(shifts))
    for index in range(6):
        scene = generate_scene(rng_of(11, index), 480, 270)
        edges = np.abs(np.diff(scene.image.astype(np.float32).sum(axis=-1), axis=1))
        for i, shift in enumerate(shifts):
            label = np.roll(scene.label, shift, axis=(0, 1))
            borders = label[:, 1:] != label[:, :-1]
            contrast[i] += edges[4:-4, 4:-4][borders[4:-4, 4:-4]].mean()
    assert contrast.argmax() == 0
    assert contrast[0] > 1.2 * contrast[1:].max(), contrast


def test_sixty_scenes__hold_every_class_but_rail_track(sixty_scenes: list[np.ndarray]) -> None:
    counts = np.bincount(np.concatenate([label.ravel() for label in sixty_scenes]), minlength=256)
    absent = [name for name, count in zip(IDD.names, counts, strict=False) if not count]
    assert absent == ["rail track"]
    assert counts[len(IDD) :].sum() == 0


def test_sixty_scenes__classes_are_as_frequent_as_on_real_streets(
    sixty_scenes: list[np.ndarray],
) -> None:
    counts = np.bincount(np.concatenate([label.ravel() for label in sixty_scenes]), minlength=26)
    share = counts / counts.sum()
    assert 0.2 < share[L.ROAD] < 0.45
    assert all(share[c] > 0.05 for c in (L.SKY, L.VEGETATION, L.BUILDING))
    vehicles_share = share[[L.CAR, L.BUS, L.TRUCK, L.AUTORICKSHAW, L.MOTORCYCLE]].sum()
    assert 0.03 < vehicles_share < 0.3
    assert share[L.PERSON] > 0.002
    seen = np.mean([np.isin(np.arange(26), label) for label in sixty_scenes], axis=0)
    assert min(seen[c] for c in range(26) if c != L.RAIL_TRACK) >= 0.15  # in 9 scenes or more
