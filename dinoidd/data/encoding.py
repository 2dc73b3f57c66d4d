"""Which encoding IDD's label images are in: by the raw values that occur in them."""

from dataclasses import dataclass, replace

from dinoidd.classes import IDD_ENCODINGS
from dinoidd.data.label_counts import VOID, Tally

# Officially, few images have no road (5 in 100 of the published 500) and void covers little of them;
# in `road255` no image has 0, and nearly all have much 255.
_RARELY_NO_ROAD = 0.2
_MOSTLY = 0.5
FEW_LABELS = 20  # fewer say little by what they lack
_CS_TRAIN_ID_MAX = 18
_OTHER = "other"
UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class EncodingVerdict:
    """What the values fit: `official`, `road255`, `undecided` (both), or `other` (neither)."""

    encoding: str
    sentence: str  # for a person: what was seen, and what follows
    clear: bool = True  # False: most of it fits, some of it speaks against

    @property
    def is_idd(self) -> bool:
        return self.encoding in IDD_ENCODINGS


def judge_encoding(tally: Tally) -> EncodingVerdict:
    """Tell the encodings of IDD's level 3 label images apart.

    Args:
        tally: counts of the label images, or of a sample of them.
    """
    images, raw = tally.labels_read, tally.raw_images
    if not images:
        return EncodingVerdict(encoding=UNDECIDED, sentence="no label image was read", clear=False)
    if tally.colored.count:
        return _other(_in_color(tally), "draw them anew with --encoding level3Id")
    if strange := sorted(set(raw) - set(range(26)) - {VOID}):
        ids = strange[-1] < 40 and VOID not in raw
        what = "the encoding `id`" if ids else "neither of IDD's level 3 encodings"
        return _other(
            f"raw values {_short(strange)} occur: {what}", "use the level3Id label images"
        )
    without = tally.no_zero.count
    if raw[0]:
        return _doubted(_official(images, raw[0], without), tally)
    if raw[VOID] and without >= _MOSTLY * images:
        verdict = EncodingVerdict(
            encoding="road255",
            sentence=f"0 occurs in none of {images:,} label images, and 255 covers much of "
            f"{without:,}: 255 is road here (encoding `road255`)",
        )
        return _doubted(verdict, tally)
    return EncodingVerdict(
        encoding=UNDECIDED,
        sentence=f"0 occurs in none of {images:,} label images, and 255 in {raw[VOID]:,}, covering "
        f"much of {without:,}: too little to tell `official` from `road255`",
        clear=False,
    )


def _in_color(tally: Tally) -> str:
    found = tally.colored
    more = ", ..." if found.count > 3 else ""
    of = f"{found.count:,} of {tally.labels_read:,} label images"
    return f"{of} are in colour ({', '.join(found.examples[:3])}{more})"


def _official(images: int, with_road: int, without: int) -> EncodingVerdict:
    mixed = images >= 5 and without > _RARELY_NO_ROAD * images
    seen = f"0 (road) occurs in {with_road:,} of {images:,} label images"
    doubt = (
        f", but {without:,} have no 0 and much 255: some of them may be in `road255`; the two must "
        "not be mixed"
    )
    sentence = seen + (doubt if mixed else ", as it does in the official encoding alone")
    return EncodingVerdict(encoding="official", sentence=sentence, clear=not mixed)


def _doubted(verdict: EncodingVerdict, tally: Tally) -> EncodingVerdict:
    """Other label images under the name of level 3's fit as well, and hold fewer classes."""
    highest = max((value for value in tally.raw_images if value != VOID), default=0)
    if highest > _CS_TRAIN_ID_MAX or tally.labels_read < FEW_LABELS:
        return verdict
    doubt = (
        f"no value above {highest} but {VOID} occurs in {tally.labels_read:,} label images: are these "
        "csTrainId, level2Id or level1Id label images under a wrong name, or another data set's "
        "(--classes camvid, cityscapes, ...)?"
    )
    return replace(verdict, sentence=f"{verdict.sentence}; {doubt}", clear=False)


def _other(seen: str, advice: str) -> EncodingVerdict:
    return EncodingVerdict(encoding=_OTHER, sentence=f"{seen}; {advice}", clear=False)


def _short(values: list[int]) -> str:
    shown = ", ".join(map(str, values[:8]))
    return f"{shown} and {len(values) - 8} more" if len(values) > 8 else shown
