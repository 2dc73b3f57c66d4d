"""A wrong encoding must not pass silently: do the raw values seen contradict the one that was set?"""

import numpy as np

# Void is a few per cent of IDD, road about a third. Without any 0, this much 255 is road.
_TOO_MUCH_VOID = 0.1


def contradiction(encoding: str, truth_values: np.ndarray) -> str | None:
    """What speaks against the encoding of IDD's level 3 label images; None: nothing.

    Args:
        encoding: `official` (0 is road, 255 void) or `road255` (255 is road, 0 does not occur).
        truth_values: [256] pixels of each raw value.
    """
    pixels = max(1, int(truth_values.sum()))
    zero, last = int(truth_values[0]), int(truth_values[255])
    if encoding == "official" and not zero and last / pixels > _TOO_MUCH_VOID:
        return (
            f"value 0 (road) does not occur and 255 (void) is {last / pixels:.1%} of the pixels: "
            "this is the encoding road255, set --encoding road255"
        )
    if encoding == "road255" and zero:
        return (
            f"value 0 is {zero / pixels:.1%} of the pixels and does not occur in the encoding "
            "road255: set --encoding official"
        )
    return None
