"""Multi-scale deformable attention's sampling on a GPU, forward and backward, as Triton kernels.

Softmax, places, bilinear samples (zeros outside) and their weighted sum are one pass over memory, in
float32 whatever the tensors are. The plain torch version, in `deformable.py`, is the reference.
Shapes: B images, Q queries, N value tokens over all levels, h heads, L levels, P points, d head width.
Blocks in the kernels: q queries of one image and head, k its L * P points padded, d padded likewise.
"""

import logging
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

Size = tuple[int, int]  # rows, columns
Grads = tuple[Tensor, Tensor, Tensor]
_log = logging.getLogger(__name__)
_TILE = 2048  # values of a block, q * d: 16 a thread, so that several blocks share a multiprocessor
_WARPS = 4


def takes(value: Tensor) -> bool:
    """Whether the kernels are for this tensor: on a GPU, and of no more than float32's precision."""
    if not value.is_cuda or value.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return False
    # What torch.compile makes for a GPU needs Triton too: there, a failure tells of itself.
    return torch.compiler.is_compiling() or run_on(value.device)


@cache
def run_on(device: torch.device) -> bool:
    """Whether a kernel can be compiled and run there, which is tried once; a warning tells if not."""
    value = torch.zeros(1, 1, 1, 8, device=device)
    offsets, logits, reference = (
        value.new_zeros(shape) for shape in ((1, 1, 2), (1, 1, 1), (1, 2))
    )
    try:
        fused_attention(value, offsets, logits, reference, [(1, 1)])
    except Exception as error:
        _log.warning(
            "deformable attention runs in plain torch, which is slower: Triton's kernels do not run "
            "on %s: %s (they need a C compiler and Python's headers: gcc, python3-dev)",
            device,
            error,
        )
        return False
    return True


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
    assert max(N, Q) * h * d < 2**31, value_BNhd.shape  # the kernels count within an image in int32
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
    _launch(_forward_kernel, [*inputs, out], sizes)
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
    _launch(_backward_kernel, [*inputs, grad_value, grad_offsets, grad_logits], sizes)
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


@triton.jit
def _softmax(logits, first, k: tl.constexpr, block_q: tl.constexpr):
    """Largest of each query's `k` logits from `first` on, and the sum of their exponentials, both [q].

    Not as a block [q, k]: its layout among the threads would have to be changed for every point.
    """
    top = tl.full((block_q,), float("-inf"), dtype=tl.float32)
    for number in tl.static_range(k):
        top = tl.maximum(top, tl.load(logits + first + number).to(tl.float32))
    total = tl.zeros((block_q,), dtype=tl.float32)
    for number in tl.static_range(k):
        total += tl.exp(tl.load(logits + first + number).to(tl.float32) - top)
    return top, total


@triton.jit
def _place(offsets, reference, q, row, rows, columns):
    """Where a point lies, (x, y) in cells with 0 at the first cell's centre, each [q]."""
    dx = tl.load(offsets + row).to(tl.float32)
    dy = tl.load(offsets + row + 1).to(tl.float32)
    x = tl.load(reference + 2 * q) * columns + dx - 0.5
    y = tl.load(reference + 2 * q + 1) * rows + dy - 0.5
    return x, y


@triton.jit
def _cell(x, y, rows, columns, heads, d: tl.constexpr, block_d: tl.constexpr):
    """Of a corner [q]: its values' indices [q, d] from the level's first, and which of them exist.

    Compared as floats, so that NaN and what no integer can hold lie outside.
    """
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    index = y.to(tl.int32) * columns + x.to(tl.int32)
    column = tl.arange(0, block_d)[None, :]
    exists = inside[:, None] & (column < d)
    return index[:, None] * (heads * d) + column, exists


@triton.jit
def _forward_kernel(
    value,
    offsets,
    logits,
    reference,
    out,
    Q,
    N,
    sizes,
    heads: tl.constexpr,
    levels: tl.constexpr,
    points: tl.constexpr,
    d: tl.constexpr,
    block_q: tl.constexpr,
    block_k: tl.constexpr,
    block_d: tl.constexpr,
):
    k: tl.constexpr = levels * points
    image = (tl.program_id(1) // heads).to(tl.int64)
    head = tl.program_id(1) % heads
    place = tl.program_id(0) * block_q + tl.arange(0, block_q)
    q = tl.minimum(place, Q - 1)  # beyond the end: the last one again, and not stored
    value += (image * N * heads + head) * d
    offsets += (image * Q * heads + head) * (2 * k)
    logits += (image * Q * heads + head) * k
    top, total = _softmax(logits, q * (heads * k), k, block_q)
    attended = tl.zeros((block_q, block_d), dtype=tl.float32)
    for level in tl.static_range(levels):
        rows, columns = sizes[2 * level], sizes[2 * level + 1]
        for point in range(points):  # not unrolled: the code is compiled in a third of the time
            row = q * (heads * k) + level * points + point
            weight = tl.exp(tl.load(logits + row).to(tl.float32) - top)
            x, y = _place(offsets, reference, q, 2 * row, rows, columns)
            left, upper = tl.floor(x), tl.floor(y)
            for corner in tl.static_range(4):
                cx, cy = left + corner % 2, upper + corner // 2
                share = weight * (1 - tl.abs(x - cx)) * (1 - tl.abs(y - cy))
                index, exists = _cell(cx, cy, rows, columns, heads, d, block_d)
                sample = tl.load(value + index, mask=exists, other=0.0).to(tl.float32)
                attended += share[:, None] * sample
        value += rows * columns * (heads * d)
    column = tl.arange(0, block_d)[None, :]
    at = out + (image * Q * heads + head) * d + q[:, None] * (heads * d) + column
    stored = (place < Q)[:, None] & (column < d)
    tl.store(at, (attended / total[:, None]).to(out.dtype.element_ty), mask=stored)


@triton.jit
def _backward_kernel(
    value,
    offsets,
    logits,
    reference,
    grad,
    grad_value,
    grad_offsets,
    grad_logits,
    Q,
    N,
    sizes,
    heads: tl.constexpr,
    levels: tl.constexpr,
    points: tl.constexpr,
    d: tl.constexpr,
    block_q: tl.constexpr,
    block_k: tl.constexpr,
    block_d: tl.constexpr,
):
    """Gradients of the loss: `grad_value` is added to, in float32; the others are written."""
    k: tl.constexpr = levels * points
    image = (tl.program_id(1) // heads).to(tl.int64)
    head = tl.program_id(1) % heads
    place = tl.program_id(0) * block_q + tl.arange(0, block_q)
    q = tl.minimum(place, Q - 1)
    lives = place < Q
    value += (image * N * heads + head) * d
    grad_value += (image * N * heads + head) * d
    offsets += (image * Q * heads + head) * (2 * k)
    grad_offsets += (image * Q * heads + head) * (2 * k)
    logits += (image * Q * heads + head) * k
    grad_logits += (image * Q * heads + head) * k
    top, total = _softmax(logits, q * (heads * k), k, block_q)

    wide = tl.arange(0, block_d)[None, :]
    at = grad + (image * Q * heads + head) * d + q[:, None] * (heads * d) + wide
    g = tl.load(at, mask=lives[:, None] & (wide < d), other=0.0).to(tl.float32)
    column = tl.arange(0, block_k)[None, :]
    of_weights = tl.zeros((block_q, block_k), dtype=tl.float32)
    for level in tl.static_range(levels):
        rows, columns = sizes[2 * level], sizes[2 * level + 1]
        for point in range(points):
            number = level * points + point
            row = q * (heads * k) + number
            weight = tl.exp(tl.load(logits + row).to(tl.float32) - top) / total
            x, y = _place(offsets, reference, q, 2 * row, rows, columns)
            left, upper = tl.floor(x), tl.floor(y)
            of_weight = tl.zeros((block_q,), dtype=tl.float32)
            of_x = tl.zeros((block_q,), dtype=tl.float32)
            of_y = tl.zeros((block_q,), dtype=tl.float32)
            for corner in tl.static_range(4):
                cx, cy = left + corner % 2, upper + corner // 2
                share_x, share_y = 1 - tl.abs(x - cx), 1 - tl.abs(y - cy)
                index, exists = _cell(cx, cy, rows, columns, heads, d, block_d)
                sample = tl.load(value + index, mask=exists, other=0.0).to(tl.float32)
                along = tl.sum(g * sample, axis=1)
                of_weight += share_x * share_y * along
                of_x += (2 * (corner % 2) - 1) * share_y * along
                of_y += (2 * (corner // 2) - 1) * share_x * along
                given = (weight * share_x * share_y)[:, None] * g
                mask = exists & lives[:, None]
                tl.atomic_add(grad_value + index, given, mask=mask, sem="relaxed")
            as_offsets = grad_offsets.dtype.element_ty
            tl.store(grad_offsets + 2 * row, (weight * of_x).to(as_offsets), mask=lives)
            tl.store(grad_offsets + 2 * row + 1, (weight * of_y).to(as_offsets), mask=lives)
            of_weights = tl.where(column == number, of_weight[:, None], of_weights)
        value += rows * columns * (heads * d)
        grad_value += rows * columns * (heads * d)
    at = q[:, None] * (heads * k) + column
    logit = tl.load(logits + at, mask=column < k, other=float("-inf")).to(tl.float32)
    weights = tl.exp(logit - top[:, None]) / total[:, None]
    of_logits = weights * (of_weights - tl.sum(weights * of_weights, axis=1)[:, None])
    stored = lives[:, None] & (column < k)
    tl.store(grad_logits + at, of_logits.to(grad_logits.dtype.element_ty), mask=stored)
