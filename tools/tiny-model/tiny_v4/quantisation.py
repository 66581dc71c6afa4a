"""The number formats of the official checkpoint, as rounding of float tensors and as packed bytes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FP4_LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
FP4_GROUP = 32
FP8_BLOCK = 128
FP8_MAX = 448.0
SCALE_MIN = 2.0**-126


def power_of_two_above(x: Tensor) -> Tensor:
    return torch.exp2(torch.ceil(torch.log2(x)))


def fp4_parts(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[..., K] to signed e2m1 values [..., K/32, 32] and their scales [..., K/32, 1] (one power of two per group)."""
    grouped = weight.unflatten(-1, (-1, FP4_GROUP))
    scale = power_of_two_above((grouped.abs().amax(-1, keepdim=True) / FP4_LEVELS[-1]).clamp_min(SCALE_MIN))
    scaled = (grouped / scale).clamp(-FP4_LEVELS[-1], FP4_LEVELS[-1])
    magnitude = scaled.abs()
    # torch.round goes to even, which is the even mantissa on each of these three grids.
    step = torch.where(magnitude < 2.0, 0.5, torch.where(magnitude < 4.0, 1.0, 2.0))
    return torch.sign(scaled) * torch.round(magnitude / step) * step, scale


def fp4_rounded(weight: Tensor) -> Tensor:
    values, scale = fp4_parts(weight)
    return (values * scale).flatten(-2)


def fp8_scale(weight: Tensor) -> Tensor:
    """One power of two for each block of 128 x 128, the last ones partly filled."""
    rows, columns = weight.shape
    padded = F.pad(weight, (0, -columns % FP8_BLOCK, 0, -rows % FP8_BLOCK))
    blocks = padded.unflatten(0, (-1, FP8_BLOCK)).unflatten(-1, (-1, FP8_BLOCK))
    return power_of_two_above((blocks.abs().amax((1, 3)) / FP8_MAX).clamp_min(SCALE_MIN))


def spread_blocks(scale: Tensor, shape: torch.Size) -> Tensor:
    """A block scale repeated for every element of a matrix of this shape."""
    rows = scale.repeat_interleave(FP8_BLOCK, 0)[: shape[0]]
    return rows.repeat_interleave(FP8_BLOCK, 1)[:, : shape[1]]


def fp8_rounded(weight: Tensor) -> Tensor:
    scale = spread_blocks(fp8_scale(weight), weight.shape)
    return (weight / scale).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn).to(weight.dtype) * scale


def fp8_rounded_groups(x: Tensor, group: int) -> Tensor:
    """Activations: one power of two for each `group` channels."""
    grouped = x.unflatten(-1, (-1, group))
    scale = power_of_two_above(grouped.abs().amax(-1, keepdim=True).clamp_min(1e-4) / FP8_MAX)
    return ((grouped / scale).clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn).to(x.dtype) * scale).flatten(-2)


def hadamard(x: Tensor) -> Tensor:
    """Walsh-Hadamard transform of the last axis (a power of two), orthonormal."""
    size, half = x.shape[-1], 1
    while half < size:
        pairs = x.unflatten(-1, (-1, 2, half))
        even, odd = pairs[..., 0, :], pairs[..., 1, :]
        x = torch.stack([even + odd, even - odd], -2).flatten(-3)
        half *= 2
    return x * size**-0.5


def e8m0(scale: Tensor) -> Tensor:
    """Powers of two as exponent bytes."""
    return (torch.round(torch.log2(scale)) + 127).clamp(0, 254).to(torch.uint8).view(torch.float8_e8m0fnu)


def fp4_packed(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[out, in] to int8 [out, in/2] with element 2i in the low nibble, and e8m0 scales [out, in/32]."""
    values, scale = fp4_parts(weight.float())
    code = torch.searchsorted(torch.tensor(FP4_LEVELS), values.abs().contiguous()).to(torch.uint8)
    code = (code | (values < 0).to(torch.uint8) << 3).flatten(-2)
    return (code[..., 0::2] | (code[..., 1::2] << 4)).view(torch.int8), e8m0(scale.squeeze(-1))


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """The rounded value with the gradient of the unrounded one."""
    return x + (rounded - x).detach()


class Rounding:
    """What the forward pass rounds; one object is shared by all modules of a model.

    `weights`: to the formats of the checkpoint. `activations`: as the official inference code does, that is FP8 inputs
    of the FP8 and FP4 linears, FP8 keys and values, Hadamard and FP4 in the indexer.
    """

    def __init__(self) -> None:
        self.weights = False
        self.activations = False

    def fp8(self, weight: Tensor) -> Tensor:
        return straight_through(weight, fp8_rounded(weight.detach())) if self.weights else weight

    def fp4(self, weight: Tensor) -> Tensor:
        return straight_through(weight, fp4_rounded(weight.detach())) if self.weights else weight

    def bf16(self, weight: Tensor) -> Tensor:
        return straight_through(weight, weight.detach().bfloat16().to(weight.dtype)) if self.weights else weight

    def linear_input(self, x: Tensor) -> Tensor:
        return straight_through(x, fp8_rounded_groups(x.detach(), 128)) if self.activations else x

    def key_value(self, x: Tensor, rope_dim: int) -> Tensor:
        """The rotated channels stay as they are."""
        if not self.activations:
            return x
        plain = x[..., :-rope_dim]
        return torch.cat([straight_through(plain, fp8_rounded_groups(plain.detach(), 64)), x[..., -rope_dim:]], -1)

    def index(self, x: Tensor) -> Tensor:
        if not self.activations:
            return x
        mixed = hadamard(x).bfloat16().to(x.dtype)
        return straight_through(mixed, fp4_rounded(mixed.detach()))
