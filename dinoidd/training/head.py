"""The classifier alone, on what the frozen network has found."""

import torch
from torch import Tensor, nn

from dinoidd.models import Segmenter


class ClassifierHead(nn.Module):
    """The model's own classifier and no-object row, under the names they have there.

    Training the head trains the model it was taken from.
    """

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        decoder = model.query_decoder
        self.query_decoder = nn.ModuleDict(
            {"classifier": decoder.classifier, "no_object": decoder.no_object}
        )
        self.classes = model.config.classes

    def forward(self, queries: Tensor) -> Tensor:
        """Class logits [..., K + 1] of queries [..., C]; the last column is no object."""
        return torch.cat([row(queries) for row in self.query_decoder.values()], dim=-1)
