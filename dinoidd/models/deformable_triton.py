"""Multi-scale deformable attention's sampling on a GPU: a torch operator over Triton kernels.

Softmax, places, bilinear samples (zeros outside) and their weighted sum are one pass over memory, in
float32 whatever the tensors are. The plain torch version, in `deformable.py`, is the reference.
Shapes: B images, Q queries, N value tokens over all levels, h heads, L levels, P points, d head width.
"""

import torch
import triton
from torch import Tensor

from dinoidd.models.deformable_kernels import backward_kernel, forward_kernel
from dinoidd.models.kernels import run_on

Size = tuple[int, int]  # rows, columns
Grads = tuple[Tensor, Tensor, Tensor]
_TILE = 2048  # values of a block, q * d: 16 a thread, so that several blocks share a multiprocessor
_WARPS = 4


def takes(value: Tensor) -> bool:
    """Whether the kernels are for this tensor: on a GPU, and of no more than float32's precision."""
    if not value.is_cuda or value.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return False
    # What torch.compile makes for a GPU needs Triton too: there, a failure tells of itself.
    return torch.compiler.is_compiling() or run_on(value.device)


def fused_attention(
    value_BNhd: Tensor, offsets: Tensor, logits: Tensor, reference_Q2: Tensor, sizes: list[Size]
) -> Tensor:
    """Attended values, as [B, Q, h * d] in the values' dtype.

    Gradients reach the values, offsets and logits, not the reference points. Those of the values are
    summed in an order that changes from run to run, like `grid_sample`'s.

    Args:
        offsets: [B, Q, h * L * P * 2], (x, y) in cells of each level's map.
        logits: [B, Q, h * L * P], before the softmax over L * P.
        reference_Q2: (x, y) in 0..1, float32.
        sizes: the levels' maps in value order.
    """
    B, N, h, d = value_BNhd.shape
    Q, points = len(reference_Q2), logits.shape[2] // h
    assert sum(rows * columns for rows, columns in sizes) == N, (N, sizes)
    assert h * max(N * d, Q * d, Q * 2 * points) < 2**31, (value_BNhd.shape, Q)  # int32 in kernels
    assert points % len(sizes) == 0, (points, sizes)
    assert offsets.shape == (B, Q, 2 * h * points), (offsets.shape, B, Q, h, points)
    assert logits.shape == (B, Q, h * points), (logits.shape, B, Q, h, points)
    flat = [side for size in sizes for side in size]
    return _attend(value_BNhd, offsets, logits, reference_Q2, flat)


@torch.library.custom_op("dinoidd::deformable_attention", mutates_args=())
def _attend(
    value: Tensor, offsets: Tensor, logits: Tensor, reference: Tensor, sizes: list[int]
) -> Tensor:
    inputs = [t.contiguous() for t in (value, offsets, logits, reference)]
    out = _empty_output(value, offsets)
    _launch(forward_kernel, [*inputs, out], sizes)
    return out


@torch.library.custom_op("dinoidd::deformable_attention_backward", mutates_args=())
def _attend_backward(
    grad: Tensor,
    value: Tensor,
    offsets: Tensor,
    logits: Tensor,
    reference: Tensor,
    sizes: list[int],
) -> Grads:
    inputs = [t.contiguous() for t in (value, offsets, logits, reference, grad)]
    grad_value = torch.zeros(value.shape, dtype=torch.float32, device=value.device)
    grad_offsets, grad_logits = torch.empty_like(inputs[1]), torch.empty_like(inputs[2])
    _launch(backward_kernel, [*inputs, grad_value, grad_offsets, grad_logits], sizes)
    return grad_value.to(value.dtype), grad_offsets, grad_logits


def _empty_output(value: Tensor, offsets: Tensor) -> Tensor:
    B, _, h, d = value.shape
    return value.new_empty(B, offsets.shape[1], h * d)


@_attend.register_fake
def _(
    value: Tensor, offsets: Tensor, logits: Tensor, reference: Tensor, sizes: list[int]
) -> Tensor:
    return _empty_output(value, offsets)


@_attend_backward.register_fake
def _(
    grad: Tensor,
    value: Tensor,
    offsets: Tensor,
    logits: Tensor,
    reference: Tensor,
    sizes: list[int],
) -> Grads:
    return (
        value.new_empty(value.shape),
        offsets.new_empty(offsets.shape),
        logits.new_empty(logits.shape),
    )


def _keep(ctx, inputs: tuple, output: Tensor) -> None:
    *tensors, ctx.sizes = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_attend_backward(grad, *ctx.saved_tensors, ctx.sizes), None, None


_attend.register_autograd(_backward, setup_context=_keep)


def _launch(kernel: triton.JITFunction, tensors: list[Tensor], sizes: list[int]) -> None:
    """Run over all queries of one image and head, then of the next: its values stay in the cache."""
    value, offsets, logits = tensors[:3]
    B, N, h, d = value.shape
    Q, k, L = offsets.shape[1], logits.shape[2] // h, len(sizes) // 2
    width = triton.next_power_of_2(d)
    block = min(max(_TILE // width, 16), 128)
    with torch.cuda.device_of(value):
        kernel[(triton.cdiv(Q, block), B * h)](
            *tensors,
            Q,
            N,
            tuple(sizes),
            heads=h,
            levels=L,
            points=k // L,
            d=d,
            block_q=block,
            block_k=triton.next_power_of_2(k),
            block_d=width,
            num_warps=_WARPS,
        )
