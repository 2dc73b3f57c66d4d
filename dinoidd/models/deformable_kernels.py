"""The Triton kernels of multi-scale deformable attention; `deformable_triton.py` launches them.

Tensors are as there, flat; all arithmetic is float32. Blocks: q queries of one image and head, k their
L * P points padded to a power of two, d the head width, padded too. Indices within an image are int32.
"""

import triton
import triton.language as tl


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
def forward_kernel(
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
    """Softmax, places, samples and their weighted sum, of `block_q` queries of one image and head."""
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
def backward_kernel(
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
