"""A matrix and the ReLU behind it."""

import torch.nn.functional as F
from torch import Tensor, nn


class ReluLinear(nn.Linear):
    """`relu(x W^T + b)`, in the memory of the product; where matrices are packed, in one step."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias).relu_()
