"""The network written a second time: plain functions of a state dict, slow and literal, in float64.

Nothing of dinoidd.models is used. `w` is a state dict, `p` the prefix of a module's names in it.
Shapes: N tokens, C channels, Q queries; one image at a time, so there is no batch axis.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Weights = dict[str, Tensor]
Sizes = list[tuple[int, int]]


def linear(w: Weights, p: str, x: Tensor) -> Tensor:
    return x @ w[f"{p}.weight"].T + w[f"{p}.bias"]


def layer_norm(w: Weights, p: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return centred / scale * w[f"{p}.weight"] + w[f"{p}.bias"]


def batch_norm(w: Weights, p: str, x_CHW: Tensor) -> Tensor:
    mean, var, weight, bias = (
        w[f"{p}.{n}"][:, None, None] for n in ("running_mean", "running_var", "weight", "bias")
    )
    return (x_CHW - mean) / (var + 1e-5).sqrt() * weight + bias


def group_norm(w: Weights, p: str, x_CHW: Tensor) -> Tensor:
    groups = x_CHW.reshape(32, -1)
    var, mean = torch.var_mean(groups, dim=1, keepdim=True, correction=0)
    normed = ((groups - mean) / (var + 1e-5).sqrt()).reshape(x_CHW.shape)
    return normed * w[f"{p}.weight"][:, None, None] + w[f"{p}.bias"][:, None, None]


def conv(w: Weights, p: str, x_CHW: Tensor, **options: int) -> Tensor:
    return F.conv2d(x_CHW[None], w[f"{p}.weight"], w.get(f"{p}.bias"), **options)[0]


def resize(x_CHW: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x_CHW[None], size=size, mode="bilinear", align_corners=False)[0]


def tokens(x_CHW: Tensor) -> Tensor:
    return x_CHW.flatten(1).T


def maps(x_NC: Tensor, sizes: Sizes) -> list[Tensor]:
    parts = x_NC.split([h * w for h, w in sizes])
    return [t.T.reshape(-1, *s) for t, s in zip(parts, sizes, strict=True)]


def pixel_centres(sizes: Sizes) -> np.ndarray:
    """(x, y) in 0..1, row by row."""
    grids = [[((j + 0.5) / w, (i + 0.5) / h) for i in range(h) for j in range(w)] for h, w in sizes]
    return np.array([xy for grid in grids for xy in grid])


def sample(map_HWd: np.ndarray, x: float, y: float) -> np.ndarray:
    """Bilinear at (x, y) in 0..1; what lies outside is zero."""
    height, width, _ = map_HWd.shape
    column, row = x * width - 0.5, y * height - 0.5
    left, top = math.floor(column), math.floor(row)
    total = np.zeros(map_HWd.shape[2])
    for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= i < height and 0 <= j < width:
            total += (1 - abs(row - i)) * (1 - abs(column - j)) * map_HWd[i, j]
    return total


def deformable(
    w: Weights, p: str, query_QC: Tensor, value_NC: Tensor, sizes: Sizes, heads: int, points: int
) -> Tensor:
    """One loop over queries, heads, levels and points."""
    levels, Q = len(sizes), len(query_QC)
    shape = (Q, heads, levels, points)
    offsets = linear(w, f"{p}.sampling_offsets", query_QC).reshape(*shape, 2).numpy()
    weights = linear(w, f"{p}.attention_weights", query_QC).reshape(Q, heads, -1).softmax(-1)
    weights_QhLP = weights.reshape(shape).numpy()
    value = linear(w, f"{p}.value_proj", value_NC)
    level_maps = [m.permute(1, 2, 0).numpy() for m in maps(value, sizes)]
    d = value.shape[1] // heads
    # A query sits at its own pixel's centre; an extractor's queries are of other levels than its values.
    centres = pixel_centres(sizes) if levels > 1 else None
    result = np.zeros((Q, heads * d))
    for q, h, level, point in np.ndindex(*shape):
        height, width = sizes[level]
        x, y = centres[q] if centres is not None else _extractor_centres(sizes[0])[q]
        dx, dy = offsets[q, h, level, point]
        part = level_maps[level][:, :, h * d : (h + 1) * d]
        value_d = sample(part, x + dx / width, y + dy / height)
        result[q, h * d : (h + 1) * d] += weights_QhLP[q, h, level, point] * value_d
    return linear(w, f"{p}.output_proj", torch.from_numpy(result))


_CENTRES: dict[tuple[int, int], np.ndarray] = {}


def _extractor_centres(grid: tuple[int, int]) -> np.ndarray:
    """Of the strides 8, 16 and 32, for a grid of patches at stride 16."""
    h, w = grid
    if grid not in _CENTRES:
        _CENTRES[grid] = pixel_centres([(2 * h, 2 * w), grid, (h // 2, w // 2)])
    return _CENTRES[grid]


def extractor(w: Weights, p: str, c_NC: Tensor, x_NC: Tensor, grid: tuple[int, int], heads: int):
    sizes = [(2 * grid[0], 2 * grid[1]), grid, (grid[0] // 2, grid[1] // 2)]
    query = layer_norm(w, f"{p}.query_norm", c_NC, 1e-6)
    value = layer_norm(w, f"{p}.feat_norm", x_NC, 1e-6)
    c_NC = c_NC + deformable(w, f"{p}.attn", query, value, [grid], heads, 4)
    hidden = linear(w, f"{p}.ffn.fc1", layer_norm(w, f"{p}.ffn_norm", c_NC, 1e-6))
    options = {"padding": 1, "groups": hidden.shape[1]}
    mixed = [tokens(conv(w, f"{p}.ffn.dwconv.dwconv", m, **options)) for m in maps(hidden, sizes)]
    return c_NC + linear(w, f"{p}.ffn.fc2", F.gelu(torch.cat(mixed)))


def adapter(w: Weights, image_3HW: Tensor, taken: list[Tensor], heads: int) -> list[Tensor]:
    """`taken`: the four blocks' patch tokens [N, C]."""
    grid = (image_3HW.shape[1] // 16, image_3HW.shape[2] // 16)
    sizes = [(2 * grid[0], 2 * grid[1]), grid, (grid[0] // 2, grid[1] // 2)]
    x = image_3HW
    for i, stride in ((0, 2), (3, 1), (6, 1)):
        x = _conv_bn_relu(w, "spm.stem", x, i, stride)
    c1 = F.max_pool2d(x[None], 3, 2, 1)[0]
    c2 = _conv_bn_relu(w, "spm.conv2", c1, 0, 2)
    c3 = _conv_bn_relu(w, "spm.conv3", c2, 0, 2)
    c4 = _conv_bn_relu(w, "spm.conv4", c3, 0, 2)
    c1, *rest = (conv(w, f"spm.fc{i + 1}", c) for i, c in enumerate((c1, c2, c3, c4)))
    c_NC = torch.cat([tokens(c) + w["level_embed"][i] for i, c in enumerate(rest)])
    for i, x_NC in enumerate(taken):
        names = [f"interactions.{i}.extractor"]
        if i == 3:
            names += [f"interactions.3.extra_extractors.{j}" for j in (0, 1)]
        for name in names:
            c_NC = extractor(w, name, c_NC, x_NC, grid, heads)
    c2, c3, c4 = maps(c_NC, sizes)
    c1 = c1 + F.conv_transpose2d(c2[None], w["up.weight"], w["up.bias"], stride=2)[0]
    levels = zip((c1, c2, c3, c4), taken, strict=True)
    added = [c + resize(maps(x, [grid])[0], c.shape[1:]) for c, x in levels]
    return [batch_norm(w, f"norm{i + 1}", a) for i, a in enumerate(added)]


def _conv_bn_relu(w: Weights, p: str, x_CHW: Tensor, index: int, stride: int) -> Tensor:
    x_CHW = conv(w, f"{p}.{index}", x_CHW, stride=stride, padding=1)
    return batch_norm(w, f"{p}.{index + 1}", x_CHW).relu()


def sine(height: int, width: int, dim: int) -> Tensor:
    """DETR's normalised position encoding, [height * width, dim], a number at a time."""
    half = dim // 2

    def feature(position: int, count: int, k: int) -> float:
        angle = (position + 1) / (count + 1e-6) * 2 * math.pi / 10_000 ** (2 * (k // 2) / half)
        return math.cos(angle) if k % 2 else math.sin(angle)

    rows = [[feature(i, height, k) for k in range(half)] for i in range(height)]
    columns = [[feature(j, width, k) for k in range(half)] for j in range(width)]
    both = [rows[i] + columns[j] for i in range(height) for j in range(width)]
    return torch.tensor(both, dtype=torch.float64)


def pixel_decoder(
    w: Weights, features: list[Tensor], heads: int, layers: int
) -> tuple[Tensor, list[Tensor]]:
    f1, f2, f3, f4 = features
    inputs = [
        group_norm(w, f"input_convs.{i}.1", conv(w, f"input_convs.{i}.0", f))
        for i, f in enumerate((f4, f3, f2))
    ]
    sizes = [tuple(m.shape[1:]) for m in inputs]
    x_NC = torch.cat([tokens(m) for m in inputs])
    level = w["encoder.level_encoding"]
    place = torch.cat([sine(*s, x_NC.shape[1]) + level[i] for i, s in enumerate(sizes)])
    for i in range(layers):
        p = f"encoder.encoder.layers.{i}"
        attended = deformable(w, f"{p}.self_attn", x_NC + place, x_NC, sizes, heads, 4)
        x_NC = layer_norm(w, f"{p}.norm1", x_NC + attended, 1e-5)
        hidden = linear(w, f"{p}.linear1", x_NC).relu()
        x_NC = layer_norm(w, f"{p}.norm2", x_NC + linear(w, f"{p}.linear2", hidden), 1e-5)
    scales = maps(x_NC, sizes)
    lateral = group_norm(w, "lateral_convs.0.norm", conv(w, "lateral_convs.0", f1))
    fine = conv(w, "output_convs.0", lateral + resize(scales[-1], f1.shape[1:]), padding=1)
    fine = group_norm(w, "output_convs.0.norm", fine).relu()
    return conv(w, "mask_feature", fine), scales


def attention(
    w: Weights, p: str, query: Tensor, key: Tensor, value: Tensor, heads: int, blocked=None
) -> Tensor:
    """Torch's own module; `blocked` [Q, N] is true where a query may not look."""
    module = nn.MultiheadAttention(query.shape[1], heads, batch_first=True, dtype=query.dtype)
    module.load_state_dict({n.removeprefix(f"{p}."): t for n, t in w.items() if n.startswith(p)})
    with torch.no_grad():
        return module(query[None], key[None], value[None], attn_mask=blocked)[0][0]


def query_decoder(
    w: Weights, scales: list[Tensor], mask_features: Tensor, heads: int, layers: int
) -> list[tuple[Tensor, Tensor]]:
    """(class logits, masks) before layer 0, 1, ... and after the last."""
    C, eps = mask_features.shape[0], 1e-5
    place = w["query_embed.weight"]
    x_QC = w["query_feat.weight"]
    outputs = [predict(w, x_QC, mask_features)]
    for i in range(layers):
        scale = scales[i % 3]
        values = tokens(scale) + w["level_embed.weight"][i % 3]
        keys = values + sine(*scale.shape[1:], C)
        blocked = resize(outputs[-1][1], scale.shape[1:]).sigmoid().flatten(1) < 0.5
        for query in blocked:
            if query.all():
                query[:] = False
        p = f"transformer_cross_attention_layers.{i}"
        read = attention(w, f"{p}.multihead_attn", x_QC + place, keys, values, heads, blocked)
        x_QC = layer_norm(w, f"{p}.norm", x_QC + read, eps)
        p = f"transformer_self_attention_layers.{i}"
        read = attention(w, f"{p}.self_attn", x_QC + place, x_QC + place, x_QC, heads)
        x_QC = layer_norm(w, f"{p}.norm", x_QC + read, eps)
        p = f"transformer_ffn_layers.{i}"
        hidden = linear(w, f"{p}.linear1", x_QC).relu()
        x_QC = layer_norm(w, f"{p}.norm", x_QC + linear(w, f"{p}.linear2", hidden), eps)
        outputs.append(predict(w, x_QC, mask_features))
    return outputs


def predict(w: Weights, x_QC: Tensor, mask_features: Tensor) -> tuple[Tensor, Tensor]:
    normed = layer_norm(w, "post_norm", x_QC, 1e-5)
    logits = [linear(w, "classifier", normed), linear(w, "no_object", normed)]
    embedding = linear(w, "mask_embed.layers.0", normed).relu()
    embedding = linear(w, "mask_embed.layers.1", embedding).relu()
    embedding = linear(w, "mask_embed.layers.2", embedding)
    return torch.cat(logits, dim=1), torch.einsum("qc,chw->qhw", embedding, mask_features)
