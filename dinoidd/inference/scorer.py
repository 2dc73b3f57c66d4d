"""A model made ready for images in either way: whole, or through windows."""

from dinoidd.config import Windows
from dinoidd.inference.predictor import Predictor, Scorer
from dinoidd.inference.window_predictor import WindowPredictor
from dinoidd.models import Segmenter


def make_scorer(
    model: Segmenter,
    device: str,
    windows: Windows | None = None,
    batch_size: int = 8,
    *,
    compiled: bool = False,
) -> Scorer:
    """The model is used up: it is rewritten for inference.

    Args:
        batch_size: images a forward, or windows. Of whole images a call brings what it likes, but a
            compiled model takes batches of this size, and fills up others.
        compiled: through `torch.compile`.
    """
    whole = Predictor(model, device, compiled_batch=batch_size if compiled else None)
    return whole if windows is None else WindowPredictor(whole, windows, batch_size)
