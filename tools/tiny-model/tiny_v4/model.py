"""The model: blocks joined by hyper-connections, and the multi-token-prediction layer.

Parameter names are those of the official checkpoint, except that the routed experts are stacked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention, Context
from .config import ModelConfig
from .experts import MoE
from .operations import hyper_read, hyper_write, norm_rope
from .quantisation import Rounding


class Losses(NamedTuple):
    language: Tensor
    """Weighted mean cross-entropy."""
    indexer: Tensor
    balance: Tensor
    cross_entropies: Tensor
    """Of the counted positions, in order."""


class HyperConnection(nn.Module):
    """Parameters of one site: the mixing matrix and the bases and scales of read, write and combination weights."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        n = config.streams
        self.fn = nn.Parameter(torch.randn((2 + n) * n, n * config.dim) * 0.02)
        base = torch.zeros((2 + n) * n)
        base[:n] = -1.1 + 0.6 * torch.randn(n)  # reads about a quarter of each stream
        base[n : 2 * n] = 0.6 * torch.randn(n)  # writes about once into each
        base[2 * n :] = (4.0 * torch.eye(n) + 0.2 * torch.randn(n, n)).flatten()  # keeps the streams apart
        self.base = nn.Parameter(base)
        self.scale = nn.Parameter(torch.full((3,), 0.1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config = self.config
        return hyper_read(
            x, self.fn, self.scale, self.base, config.sinkhorn_iterations, config.norm_eps, config.hyper_eps
        )


class Block(nn.Module):
    def __init__(self, config: ModelConfig, rounding: Rounding, ratio: int, hashed: bool) -> None:
        super().__init__()
        self.eps = config.norm_eps
        self.attn = Attention(config, rounding, ratio)
        self.ffn = MoE(config, rounding, hashed)
        self.attn_norm = nn.Parameter(torch.ones(config.dim))
        self.ffn_norm = nn.Parameter(torch.ones(config.dim))
        self.hc_attn, self.hc_ffn = HyperConnection(config), HyperConnection(config)

    def forward(self, x: Tensor, ids: Tensor, context: Context) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Streams [B, S, 4, dim] to the same, the indexer's loss and the balance loss."""
        y, write, combination = self.hc_attn(x)
        output, indexer = self.attn(norm_rope(y, self.attn_norm, eps=self.eps), context)
        x = hyper_write(output, x, write, combination)
        y, write, combination = self.hc_ffn(x)
        output, balance = self.ffn(norm_rope(y, self.ffn_norm, eps=self.eps), ids)
        return hyper_write(output, x, write, combination), indexer, balance


class StreamHead(nn.Module):
    """The collapse of the streams before the output head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.Parameter(torch.ones(config.dim))
        self.hc_head_fn = nn.Parameter(torch.randn(config.streams, config.streams * config.dim) * 0.02)
        self.hc_head_base = nn.Parameter(-1.1 + 0.1 * torch.randn(config.streams))
        self.hc_head_scale = nn.Parameter(torch.full((1,), 0.1))

    def collapse(self, x: Tensor) -> Tensor:
        """[B, S, 4, dim] to [B, S, dim]."""
        logits = F.linear(norm_rope(x.flatten(2), eps=self.config.norm_eps), self.hc_head_fn)
        read = torch.sigmoid(logits * self.hc_head_scale + self.hc_head_base) + self.config.hyper_eps
        return norm_rope((read.unsqueeze(-1) * x).sum(2), self.norm, eps=self.config.norm_eps)


class TinyV4(StreamHead):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.rounding = Rounding()
        self.sparse = True
        self.embed = nn.Parameter(torch.randn(config.vocab_size, config.dim) * 0.5)
        self.head = nn.Parameter(torch.randn(config.vocab_size, config.dim) * config.dim**-0.5 * 0.5)
        self.layers = nn.ModuleList(
            Block(config, self.rounding, ratio, i < config.n_hash_layers)
            for i, ratio in enumerate(config.compress_ratios)
        )
        for name, parameter in self.named_parameters():
            if name.endswith(("wo_b.weight", "sw2.weight")):
                parameter.data.mul_(0.3)

    def streams(
        self, ids: Tensor, documents: Tensor | None = None
    ) -> tuple[Tensor, Context, list[Tensor], list[Tensor]]:
        """The streams after the last layer [B, S, 4, dim], the context, and the indexer and balance losses.

        ids [B, S] with S a multiple of the window; documents as in Context.of_documents, by default one a row.
        """
        documents = torch.zeros_like(ids) if documents is None else documents
        context = Context.of_documents(self.config, documents, self.sparse)
        x = F.embedding(ids, self.rounding.bf16(self.embed))
        x = x.unsqueeze(2).expand(-1, -1, self.config.streams, -1).contiguous()
        indexer_losses, balance_losses = [], []
        for layer in self.layers:
            x, indexer, balance = layer(x, ids, context)
            indexer_losses += [] if indexer is None else [indexer]
            balance_losses += [] if balance is None else [balance]
        return x, context, indexer_losses, balance_losses

    def forward(self, ids: Tensor, documents: Tensor | None = None) -> Tensor:
        """Logits [B, S, vocab]."""
        return F.linear(self.collapse(self.streams(ids, documents)[0]), self.rounding.bf16(self.head))

    def losses(self, ids: Tensor, documents: Tensor, targets: Tensor, weights: Tensor) -> Losses:
        """All [B, S]; positions of weight 0 are left out of the output head, which spares most of its work."""
        x, _, indexer_losses, balance_losses = self.streams(ids, documents)
        counted = weights.flatten() > 0
        hidden = self.collapse(x).flatten(0, 1)[counted]
        weights = weights.flatten()[counted]
        logits = F.linear(hidden, self.rounding.bf16(self.head))
        cross_entropies = F.cross_entropy(logits, targets.flatten()[counted], reduction="none")
        language = (cross_entropies * weights).sum() / weights.sum().clamp_min(1e-6)
        indexer, balance = (torch.stack(losses).mean() for losses in (indexer_losses, balance_losses))
        return Losses(language, indexer, balance, cross_entropies.detach())

    def round_norms(self) -> None:
        """Norm weights are bf16 in the checkpoint; call before measuring with rounded weights."""
        for name, parameter in self.named_parameters():
            if name.endswith("norm"):
                parameter.data = parameter.data.bfloat16().float()


class MultiTokenPrediction(StreamHead):
    """Layer mtp.0: from the streams at t and the token t + 1, predicts the token t + 2 through the model's head."""

    def __init__(self, config: ModelConfig, rounding: Rounding) -> None:
        super().__init__(config)
        self.rounding = rounding
        self.block = Block(replace(config, compress_ratios=(0,), n_hash_layers=0), rounding, 0, False)
        self.e_proj = nn.Linear(config.dim, config.dim, bias=False)
        self.h_proj = nn.Linear(config.dim, config.dim, bias=False)
        with torch.no_grad():
            for projection in (self.e_proj, self.h_proj):
                projection.weight.copy_(torch.eye(config.dim) + 0.02 * torch.randn(config.dim, config.dim))
        self.enorm = nn.Parameter(torch.ones(config.dim))
        self.hnorm = nn.Parameter(torch.ones(config.dim))

    def forward(self, streams: Tensor, following: Tensor, embed: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """streams [B, S, 4, dim], following [B, S] the token at t + 1; to [B, S, dim] and the balance loss."""
        rounding, eps = self.rounding, self.config.norm_eps
        token = norm_rope(F.embedding(following, rounding.bf16(embed)), self.enorm, eps=eps)
        token = F.linear(rounding.linear_input(token), rounding.fp8(self.e_proj.weight))
        state = norm_rope(streams, self.hnorm, eps=eps)
        state = F.linear(rounding.linear_input(state), rounding.fp8(self.h_proj.weight))
        x, _, balance = self.block((token.unsqueeze(2) + state).contiguous(), following, context)
        return self.collapse(x), balance
