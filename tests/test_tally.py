"""Counts that add up, however the work was cut."""

import json

from dinoidd.segment.tally import SECONDS, Tally, total


def tally(images: int, ok: int, kinds: dict[str, int], road: int) -> Tally:
    result = Tally(images=images, ok=ok, bytes_read=10 * images, bytes_written=images)
    result.errors.update(kinds)
    result.pixels.update({"road": road})
    result.images_with.update({"road": ok})
    result.seconds["model"] = 0.5
    return result


def test_total__adds_everything() -> None:
    parts = [tally(8, 8, {}, 100), tally(8, 5, {"empty": 2, "missing": 1}, 7)]
    whole = total([*parts, tally(1, 0, {"empty": 1}, 0)])
    assert (whole.images, whole.ok, whole.failed) == (17, 13, 4)
    assert whole.errors == {"empty": 3, "missing": 1}
    assert (whole.pixels["road"], whole.images_with["road"]) == (107, 13)
    assert (whole.bytes_read, whole.bytes_written) == (170, 17)
    assert whole.seconds == dict.fromkeys(SECONDS, 0.0) | {"model": 1.5}
    assert whole.error_rate == 4 / 17
    assert whole.counts() == {"images": 17, "ok": 13, "errors": {"empty": 3, "missing": 1}}


def test_total__of_nothing() -> None:
    assert total([]) == Tally()
    assert Tally().error_rate == 0.0


def test_to_dict__survives_json() -> None:
    before = tally(8, 5, {"empty": 2, "missing": 1}, 7)
    after = Tally.from_dict(json.loads(json.dumps(before.to_dict())))
    assert after == before
    assert after.errors["never seen"] == 0  # a Counter still


def test_from_dict__shares_nothing_with_its_source() -> None:
    before = tally(8, 5, {"empty": 3}, 7)
    after = Tally.from_dict(before.to_dict())
    after.add(tally(8, 8, {}, 1))
    assert before == tally(8, 5, {"empty": 3}, 7)
