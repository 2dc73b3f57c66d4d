"""A model made ready for images in either way: whole, or through windows."""

from dinoidd.config import Windows
from dinoidd.inference.predictor import Predictor, Scorer
from dinoidd.inference.window_predictor import WindowPredictor
from dinoidd.models import Segmenter


def make_scorer(
    model: Segmenter, device: str, windows: Windows | None = None, batch_size: int = 8
) -> Scorer:
    """`batch_size` is windows a forward; a whole image's is that of the call."""
    if windows is None:
        return Predictor(model, device)
    return WindowPredictor(model, windows, device, batch_size)
