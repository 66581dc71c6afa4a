"""The four operations that eager PyTorch is slow at, written plainly; on a CPU the fused kernels take over.

The plain versions are the definition. They run on every device and check the kernels (`python -m tiny_v4 check`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import fused

HIDDEN = -1e30


def norm_rope(
    x: Tensor,
    weight: Tensor | None = None,
    angles: tuple[Tensor, Tensor] | None = None,
    *,
    normalise: bool = True,
    inverse: bool = False,
    eps: float = 1e-6,
) -> Tensor:
    """RMS norm of the last axis, then interleaved RoPE of its last channels.

    x [B, S, D] or [B, S, heads, D]; weight [D]; angles are cosine and sine [S, pairs]. `inverse` turns back.
    """
    if fused.usable(x):
        heads = x.shape[2] if x.ndim == 4 else 1
        return fused.NormRope.apply(x, weight, angles, heads, normalise, inverse, eps)
    if normalise:
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
        x = x if weight is None else x * weight
    return x if angles is None else rotated(x, angles, inverse)


def rotated(x: Tensor, angles: tuple[Tensor, Tensor], inverse: bool) -> Tensor:
    cosine, sine = angles
    if x.ndim == 4:
        cosine, sine = cosine.unsqueeze(1), sine.unsqueeze(1)
    sine = -sine if inverse else sine
    plain, turning = x[..., : -2 * cosine.shape[-1]], x[..., -2 * cosine.shape[-1] :]
    a, b = turning[..., 0::2], turning[..., 1::2]
    turned = torch.stack((a * cosine - b * sine, b * cosine + a * sine), -1).flatten(-2)
    return torch.cat([plain, turned], -1)


def hyper_read(
    x: Tensor, mixing: Tensor, scale: Tensor, base: Tensor, iterations: int, norm_eps: float, hyper_eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The entry of a hyper-connection: streams x [B, S, 4, D] to the layer's input [B, S, D], the weights of its output
    [B, S, 4] and the doubly stochastic combination [B, S, 4, 4] (Sinkhorn)."""
    if fused.usable(x):
        return fused.HyperRead.apply(x, mixing, scale, base, iterations, norm_eps, hyper_eps)
    n = x.shape[2]
    logits = F.linear(norm_rope(x.flatten(2), eps=norm_eps), mixing)
    read = torch.sigmoid(logits[..., :n] * scale[0] + base[:n]) + hyper_eps
    write = 2 * torch.sigmoid(logits[..., n : 2 * n] * scale[1] + base[n : 2 * n])
    combination = (logits[..., 2 * n :] * scale[2] + base[2 * n :]).unflatten(-1, (n, n))
    combination = torch.softmax(combination, -1) + hyper_eps
    combination = combination / (combination.sum(-2, keepdim=True) + hyper_eps)
    for _ in range(iterations - 1):
        combination = combination / (combination.sum(-1, keepdim=True) + hyper_eps)
        combination = combination / (combination.sum(-2, keepdim=True) + hyper_eps)
    return (read.unsqueeze(-1) * x).sum(2), write, combination


def hyper_write(output: Tensor, x: Tensor, write: Tensor, combination: Tensor) -> Tensor:
    """The exit of a hyper-connection: stream k becomes write[k] * output + sum over j of combination[j, k] * x[j]."""
    if fused.usable(x):
        return fused.HyperWrite.apply(output, x, write, combination)
    return write.unsqueeze(-1) * output.unsqueeze(-2) + combination.transpose(-1, -2) @ x


def attention_weights(
    window: Tensor,
    compressed: Tensor | None,
    window_hidden: Tensor,
    compressed_hidden: Tensor | None,
    sink: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor | None]:
    """One softmax over the scores of the sliding window, of the compressed entries and a learned sink.

    window [B, blocks, heads, W, 2W] with hidden [B, blocks, W, 2W]; compressed [B, heads, S, T] with hidden [B, S, T];
    sink [heads]. True in a mask hides.
    """
    if fused.usable(window):
        return fused.AttentionWeights.apply(window, compressed, window_hidden, compressed_hidden, sink, scale)
    batch, blocks, heads, width, keys = window.shape
    parts = [(window * scale).masked_fill(window_hidden.unsqueeze(2), HIDDEN)]
    if compressed is not None:
        masked = (compressed * scale).masked_fill(compressed_hidden.unsqueeze(1), HIDDEN)
        parts.append(masked.unflatten(2, (blocks, width)).transpose(1, 2))
    parts.append(sink.view(1, 1, heads, 1, 1).expand(batch, blocks, heads, width, 1))
    weights = torch.softmax(torch.cat(parts, -1), -1)
    if compressed is None:
        return weights[..., :keys], None
    return weights[..., :keys], weights[..., keys:-1].transpose(1, 2).flatten(2, 3)
