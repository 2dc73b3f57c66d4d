"""Learned tables: tokens, queries, and one vector a level."""

import torch
from torch import Tensor, nn


def normal_table(*shape: int, std: float = 1.0) -> nn.Parameter:
    """A parameter of normally distributed start values.

    On the meta device nothing is drawn: torch would import 80 MB of modules to draw no numbers.
    """
    table: Tensor = torch.empty(*shape)
    return nn.Parameter(table if table.is_meta else table.normal_(std=std))


def embedding(rows: int, dim: int) -> nn.Embedding:
    """`nn.Embedding(rows, dim)`, cheap on the meta device."""
    return nn.Embedding.from_pretrained(normal_table(rows, dim), freeze=False)
