"""Inputs of deformable attention, and what a version of it makes of them: output and gradients.

Run as a program with TRITON_INTERPRET=1 (which is read when Triton is imported) it writes to a file what
the GPU kernels answer on the CPU: in every case, or `compiled` to one graph.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dinoidd.models import deformable

Answers = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Levels' maps (rows, columns), queries, head width, and how far points lie from theirs, in cells."""

    sizes: tuple[tuple[int, int], ...]
    queries: int
    width: int
    points: int = 1
    reach: float = 2.0
    dtype: torch.dtype = torch.float32
    batch: int = 1
    heads: int = 1


ONE, THREE = ((5, 7),), ((3, 5), (6, 10), (12, 7))
CASES = {  # small ones: a block of queries takes the interpreter a tenth of a second and more
    "images, heads": Case(sizes=ONE, queries=30, width=16, points=2, batch=2, heads=2),
    "three levels": Case(sizes=THREE, queries=64, width=32, points=2),
    "width no power of two": Case(sizes=THREE, queries=128, width=12),
    "queries no multiple of a block": Case(sizes=ONE, queries=129, width=16, points=3),
    "one query": Case(sizes=ONE, queries=1, width=8),
    "a map of one cell": Case(sizes=((1, 1), (2, 1)), queries=50, width=8),
    "most points outside": Case(sizes=THREE, queries=64, width=32, reach=40.0),
    "full width": Case(sizes=ONE, queries=20, width=128),
    "bfloat16": Case(sizes=THREE, queries=40, width=12, heads=2, dtype=torch.bfloat16),
    "float16": Case(sizes=ONE, queries=40, width=16, dtype=torch.float16),
}
MODULE = "the module"


def answers(attend: Callable[..., Tensor], case: Case, device: str = "cpu") -> Answers:
    """Output and gradients, of values drawn from one seed."""
    torch.manual_seed(0)
    h, points = case.heads, case.points * len(case.sizes)
    cells = sum(rows * columns for rows, columns in case.sizes)
    drawn = [
        torch.randn(case.batch, cells, h, case.width),
        torch.randn(case.batch, case.queries, h * points * 2) * case.reach,
        torch.randn(case.batch, case.queries, h * points),
    ]
    leaves = [t.to(device, case.dtype).requires_grad_() for t in drawn]
    reference = torch.rand(case.queries, 2).to(device)
    out = attend(*leaves, reference, list(case.sizes))
    given = torch.randn(out.shape).to(out)
    grads = torch.autograd.grad(out, leaves, given)
    return dict(zip(("output", "values", "offsets", "logits"), (out.detach(), *grads), strict=True))


def module_answers(
    device: str = "cpu", wrap: Callable[[torch.nn.Module], Callable[..., Tensor]] = lambda m: m
) -> Answers:
    """Output of the whole module, and the gradients of its inputs and parameters."""
    torch.manual_seed(0)
    B, Q = 1, 30
    module = deformable.DeformableAttention(24, heads=2, levels=3, points=2, value_ratio=0.5)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    module.to(device)
    cells = sum(rows * columns for rows, columns in THREE)
    leaves = [torch.randn(B, n, 24).to(device).requires_grad_() for n in (Q, cells)]
    reference = torch.rand(Q, 2).to(device)
    out = wrap(module)(leaves[0], reference, leaves[1], list(THREE))
    named = {"query": leaves[0], "value": leaves[1], **dict(module.named_parameters())}
    given = torch.randn(out.shape).to(out)
    grads = torch.autograd.grad(out, list(named.values()), given)
    return {"output": out.detach(), **dict(zip(named, grads, strict=True))}


def far_off(fused: Answers, plain: Answers, tolerance: float) -> dict[str, float]:
    """By name, the share of numbers further apart than `tolerance` times the largest, or NaN."""
    assert fused.keys() == plain.keys()
    shares = {}
    for name, right in plain.items():
        assert fused[name].shape == right.shape
        assert fused[name].dtype == right.dtype
        apart = (fused[name].double() - right.double()).abs()
        near = apart <= tolerance * right.double().abs().max()
        shares[name] = (~near).double().mean().item()
    return shares


def check_operator(device: str = "cpu") -> None:
    """Hold the kernels' operator against torch's rules: schema, autograd, shapes without data."""
    shapes = [(1, 35, 2, 8), (1, 9, 16), (1, 9, 8)]
    leaves = [torch.randn(shape, device=device, requires_grad=True) for shape in shapes]
    inputs = (*leaves, torch.rand(9, 2, device=device), [5, 7])
    torch.library.opcheck(torch.ops.dinoidd.deformable_attention.default, inputs)


def one_graph(module: torch.nn.Module) -> Callable[..., Tensor]:
    return torch.compile(module, fullgraph=True, backend="aot_eager")


def main(file: str, compiled: bool) -> None:
    from dinoidd.models import deformable_triton as kernels

    deformable.kernels, kernels.takes = kernels, lambda value: True
    if compiled:
        check_operator()
        found = {MODULE: module_answers(wrap=one_graph)}
    else:
        found = {name: answers(kernels.fused_attention, case) for name, case in CASES.items()}
        found[MODULE] = module_answers()
    torch.save(found, file)


if __name__ == "__main__":
    main(sys.argv[1], "compiled" in sys.argv[2:])
