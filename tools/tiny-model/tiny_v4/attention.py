"""Sliding-window attention with compressed entries: the three attention kinds of the architecture in one module."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig
from .operations import HIDDEN, attention_weights, norm_rope
from .quantisation import Rounding

SPARSE, HEAVY = 4, 128
"""Tokens in one compressed entry: of compressed sparse and of heavily compressed attention."""

Angles = tuple[Tensor, Tensor]


def rope_frequencies(config: ModelConfig, compressed: bool) -> Tensor:
    """Radians a position, one for each pair of channels; YaRN only in layers with compressed entries."""
    base = config.compress_rope_theta if compressed else config.rope_theta
    dim = config.rope_dim
    frequencies = 1.0 / (base ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    if not compressed:
        return frequencies

    def channel_of(rotations: int) -> float:
        return dim * math.log(config.yarn_original_positions / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(channel_of(config.yarn_beta_fast)), 0)
    high = min(math.ceil(channel_of(config.yarn_beta_slow)), dim - 1)
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / max(high - low, 0.001)).clamp(0, 1)
    return frequencies / config.yarn_factor * ramp + frequencies * (1 - ramp)


def rope_angles(config: ModelConfig, positions: Tensor, compressed: bool) -> Angles:
    turns = positions.float().unsqueeze(1) * rope_frequencies(config, compressed).to(positions.device)
    return turns.cos(), turns.sin()


@dataclass(frozen=True)
class Context:
    """What all layers share in one forward pass; masks are True where something is hidden."""

    angles: dict[bool, Angles]
    """For each position [S, pairs]; the key is whether the layer has compressed entries."""
    entry_angles: dict[int, Angles]
    """For the first position of each entry [S/ratio, pairs]."""
    window_hidden: Tensor
    """[B, blocks, W, 2W]"""
    entries_hidden: dict[int, Tensor]
    """[B, S, S/ratio]"""
    continues: Tensor
    """[B, S/4]: the entry before belongs to the same document."""
    sparse: bool
    """Whether the indexer's selection is applied; off only early in training."""

    @staticmethod
    def of_documents(config: ModelConfig, documents: Tensor, sparse: bool) -> Context:
        """documents [B, S] are ids; S a multiple of the window, each document starts at a multiple of 4.

        A row may hold several documents and none sees another, because entries that would mix two are hidden: an
        entry is visible to the document of its first token, and only when it is complete.
        """
        batch, length = documents.shape
        width, device = config.window, documents.device
        positions = torch.arange(length, device=device)
        own = documents.unflatten(1, (-1, width))
        both = torch.cat([F.pad(own[:, :-1], (0, 0, 1, 0), value=-1), own], 2)
        query, key = torch.arange(width, device=device).unsqueeze(1) + width, torch.arange(2 * width, device=device)
        outside = (key > query) | (query - key >= width)
        entries_hidden, entry_angles = {}, {}
        for ratio in (SPARSE, HEAVY):
            first = documents[:, ::ratio]
            complete = (positions.unsqueeze(1) + 1) // ratio > torch.arange(length // ratio, device=device)
            entries_hidden[ratio] = ~(complete & (first.unsqueeze(1) == documents.unsqueeze(2)))
            entry_angles[ratio] = rope_angles(config, positions[::ratio], True)
        first = documents[:, ::SPARSE]
        return Context(
            angles={compressed: rope_angles(config, positions, compressed) for compressed in (False, True)},
            entry_angles=entry_angles,
            window_hidden=outside | (own.unsqueeze(-1) != both.unsqueeze(-2)),
            entries_hidden=entries_hidden,
            continues=F.pad(first[:, 1:] == first[:, :-1], (1, 0), value=False),
            sparse=sparse,
        )


class Compressor(nn.Module):
    """Pools `ratio` tokens into one entry with learned weights; at ratio 4 the entries overlap by one window."""

    def __init__(self, config: ModelConfig, rounding: Rounding, ratio: int, head_dim: int) -> None:
        super().__init__()
        self.eps, self.rounding, self.ratio, self.head_dim = config.norm_eps, rounding, ratio, head_dim
        width = head_dim * (2 if ratio == SPARSE else 1)
        self.wkv = nn.Linear(config.dim, width, bias=False)
        self.wgate = nn.Linear(config.dim, width, bias=False)
        self.ape = nn.Parameter(torch.zeros(ratio, width))
        self.norm = nn.Parameter(torch.ones(head_dim))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """[B, S, dim] to [B, S/ratio, head_dim]."""
        values = F.linear(x, self.rounding.bf16(self.wkv.weight)).unflatten(1, (-1, self.ratio))
        gates = F.linear(x, self.rounding.bf16(self.wgate.weight)).unflatten(1, (-1, self.ratio)) + self.ape
        if self.ratio == SPARSE:
            values, gates = self._overlap(values, gates, context.continues)
        pooled = (values * gates.softmax(2)).sum(2)
        return norm_rope(pooled, self.norm, context.entry_angles[self.ratio], eps=self.eps)

    def _overlap(self, values: Tensor, gates: Tensor, continues: Tensor) -> tuple[Tensor, Tensor]:
        """The first half of the channels of the window before, then the second half of this one."""
        before = F.pad(values[:, :-1, :, : self.head_dim], (0, 0, 0, 0, 1, 0))
        gates_before = F.pad(gates[:, :-1, :, : self.head_dim], (0, 0, 0, 0, 1, 0))
        gates_before = gates_before.masked_fill(~continues[:, :, None, None], HIDDEN)
        values = torch.cat([before, values[..., self.head_dim :]], 2)
        return values, torch.cat([gates_before, gates[..., self.head_dim :]], 2)


class Indexer(nn.Module):
    """Scores every compressed entry for every query; the best `index_topk` are read."""

    def __init__(self, config: ModelConfig, rounding: Rounding) -> None:
        super().__init__()
        self.heads, self.dim, self.rounding = config.index_heads, config.index_dim, rounding
        self.wq_b = nn.Linear(config.q_lora_rank, self.heads * self.dim, bias=False)
        self.weights_proj = nn.Linear(config.dim, self.heads, bias=False)
        self.compressor = Compressor(config, rounding, SPARSE, self.dim)

    def forward(self, x: Tensor, q_latent: Tensor, context: Context) -> Tensor:
        """[B, S, S/4] scores."""
        keys = self.rounding.index(self.compressor(x, context))
        query = F.linear(self.rounding.linear_input(q_latent), self.rounding.fp8(self.wq_b.weight))
        query = query.unflatten(-1, (self.heads, self.dim))
        query = self.rounding.index(norm_rope(query, angles=context.angles[True], normalise=False))
        scores = (query.flatten(1, 2) @ keys.transpose(1, 2)).unflatten(1, (-1, self.heads))
        weights = F.linear(x, self.rounding.bf16(self.weights_proj.weight)) * self.heads**-0.5
        return (F.relu(scores) * self.dim**-0.5 * weights.unsqueeze(-1)).sum(2)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig, rounding: Rounding, ratio: int) -> None:
        super().__init__()
        self.config, self.rounding, self.ratio = config, rounding, ratio
        heads_dim = config.n_heads * config.head_dim
        self.wq_a = nn.Linear(config.dim, config.q_lora_rank, bias=False)
        self.q_norm = nn.Parameter(torch.ones(config.q_lora_rank))
        self.wq_b = nn.Linear(config.q_lora_rank, heads_dim, bias=False)
        self.wkv = nn.Linear(config.dim, config.head_dim, bias=False)
        self.kv_norm = nn.Parameter(torch.ones(config.head_dim))
        self.wo_a = nn.Linear(heads_dim // config.o_groups, config.o_groups * config.o_lora_rank, bias=False)
        self.wo_b = nn.Linear(config.o_groups * config.o_lora_rank, config.dim, bias=False)
        self.attn_sink = nn.Parameter(torch.zeros(config.n_heads))
        self.compressor = Compressor(config, rounding, ratio, config.head_dim) if ratio else None
        self.indexer = Indexer(config, rounding) if ratio == SPARSE else None

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor | None]:
        """[B, S, dim] to the same; also the indexer's loss while training a layer that has one."""
        config, rounding = self.config, self.rounding
        width, eps, angles = config.window, config.norm_eps, context.angles[bool(self.ratio)]
        scale, x_in = config.head_dim**-0.5, rounding.linear_input(x)
        q_latent = norm_rope(F.linear(x_in, rounding.fp8(self.wq_a.weight)), self.q_norm, eps=eps)
        query = F.linear(rounding.linear_input(q_latent), rounding.fp8(self.wq_b.weight))
        query = norm_rope(query.unflatten(-1, (config.n_heads, config.head_dim)), angles=angles, eps=eps)
        entry = norm_rope(F.linear(x_in, rounding.fp8(self.wkv.weight)), self.kv_norm, angles, eps=eps)
        entry = rounding.key_value(entry, config.rope_dim)
        # Keys are values. Block i of the window's width sees the blocks i - 1 and i.
        blocks = entry.unflatten(1, (-1, width))
        blocks = torch.cat([F.pad(blocks[:, :-1], (0, 0, 0, 0, 1, 0)), blocks], 2)
        by_head = query.transpose(1, 2)
        queries = by_head.unflatten(2, (-1, width)).transpose(1, 2)
        window = (queries.flatten(2, 3) @ blocks.transpose(2, 3)).unflatten(2, (config.n_heads, width))
        packed = scores = hidden = loss = None
        if self.compressor is not None:
            packed = rounding.key_value(self.compressor(x, context), config.rope_dim)
            scores = (by_head.flatten(1, 2) @ packed.transpose(1, 2)).unflatten(1, (config.n_heads, -1))
            hidden = context.entries_hidden[self.ratio]
        if self.indexer is not None:
            # Detached: the language loss does not reach the indexer and its own loss does not reach the model.
            ranks = self.indexer(x.detach(), q_latent.detach(), context).masked_fill(hidden, HIDDEN)
            if self.training:
                loss = indexer_loss(ranks, scores.detach() * scale, hidden)
            if context.sparse and config.index_topk < ranks.shape[-1]:
                best = ranks.topk(config.index_topk, -1).indices
                hidden = hidden | ~torch.zeros_like(hidden).scatter(-1, best, True)
        by_window, by_entry = attention_weights(window, scores, context.window_hidden, hidden, self.attn_sink, scale)
        read = (by_window.flatten(2, 3) @ blocks).unflatten(2, (config.n_heads, width))
        read = read.transpose(1, 2).flatten(2, 3)
        if packed is not None:
            read = read + (by_entry.flatten(1, 2) @ packed).unflatten(1, (config.n_heads, -1))
        read = norm_rope(read.transpose(1, 2), angles=angles, normalise=False, inverse=True)
        return self._output(read), loss

    def _output(self, read: Tensor) -> Tensor:
        """[B, S, heads, head_dim] to [B, S, dim]: a low-rank projection for each group of heads, then a shared one."""
        config = self.config
        batch, length = read.shape[:2]
        grouped = read.reshape(batch * length, config.o_groups, -1).transpose(0, 1)
        weight = self.rounding.fp8(self.wo_a.weight).unflatten(0, (config.o_groups, config.o_lora_rank))
        latent = torch.bmm(grouped, weight.transpose(1, 2)).transpose(0, 1).reshape(batch, length, -1)
        return F.linear(self.rounding.linear_input(latent), self.rounding.fp8(self.wo_b.weight))


def indexer_loss(ranks: Tensor, scores: Tensor, hidden: Tensor) -> Tensor:
    """KL divergence of the indexer's distribution from the attention over the compressed entries, mean of the heads.

    Needed because the selection passes no gradient. Queries without a visible entry do not count.
    """
    with torch.no_grad():
        target = torch.softmax(scores.masked_fill(hidden.unsqueeze(1), HIDDEN), -1).mean(1) * ~hidden
        counts = target.sum(-1) > 0.5
    divergence = (target * (torch.log(target + 1e-9) - F.log_softmax(ranks, -1))).sum(-1)
    return (divergence * counts).sum() / counts.sum().clamp_min(1)
