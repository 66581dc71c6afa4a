"""The mixture of experts: hash or top-k routing, FP4 experts, one shared FP8 expert."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig
from .quantisation import Rounding


def hash_table(config: ModelConfig) -> Tensor:
    """[vocab, 2]: two different experts for each token id."""
    ids = torch.arange(config.vocab_size)
    first = (ids * 2654435761 % 2**32) // 65536 % config.n_experts
    distance = 1 + (ids * 40503 % 65536) // 7 % (config.n_experts - 1)
    return torch.stack([first, (first + distance) % config.n_experts], 1)


class MoE(nn.Module):
    """Experts are stacked: `experts_w13` [E, gate then up, dim], `experts_w2` [E, dim, expert_dim]. `sw1`, `sw3` and
    `sw2` are gate, up and down of the shared expert."""

    def __init__(self, config: ModelConfig, rounding: Rounding, hashed: bool) -> None:
        super().__init__()
        self.config, self.rounding, self.hashed = config, rounding, hashed
        count, dim, inner = config.n_experts, config.dim, config.expert_dim
        self.gate = nn.Parameter(torch.randn(count, dim) * 0.02)
        if hashed:
            self.register_buffer("tid2eid", hash_table(config))
        else:
            self.register_buffer("gate_bias", torch.zeros(count))
        self.experts_w13 = nn.Parameter(torch.randn(count, 2 * inner, dim) * dim**-0.5)
        self.experts_w2 = nn.Parameter(torch.randn(count, dim, inner) * inner**-0.5 * 0.3)
        self.sw1 = nn.Linear(dim, inner, bias=False)
        self.sw3 = nn.Linear(dim, inner, bias=False)
        self.sw2 = nn.Linear(inner, dim, bias=False)
        self.load: Tensor | None = None
        """Share of each expert in the last training step's choices."""

    def forward(self, x: Tensor, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """[B, S, dim] to the same, and the balance loss while training a layer with learned routing."""
        config, rounding = self.config, self.rounding
        flat = x.flatten(0, 1)
        scores = torch.sqrt(F.softplus(F.linear(flat, rounding.bf16(self.gate))))
        balance = None
        if self.hashed:
            chosen = self.tid2eid[ids.flatten()]
        else:
            chosen = torch.topk(scores + self.gate_bias, config.n_active_experts, -1).indices
            if self.training:
                self.load = torch.bincount(chosen.flatten(), minlength=config.n_experts) / chosen.numel()
                probability = (scores / scores.sum(-1, keepdim=True)).mean(0)
                balance = config.n_experts * (probability * self.load).sum()
        weights = scores.gather(1, chosen)
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20) * config.routed_scaling
        x_in = rounding.linear_input(flat)
        routed = self._routed(x_in, chosen, weights)
        gate, up = F.linear(x_in, rounding.fp8(self.sw1.weight)), F.linear(x_in, rounding.fp8(self.sw3.weight))
        shared = F.linear(rounding.linear_input(self._activate(gate, up)), rounding.fp8(self.sw2.weight))
        return (routed + shared).view_as(x), balance

    def _routed(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Sorts the (token, expert) pairs by expert, so that each expert is one dense product."""
        w13, w2 = self.rounding.fp4(self.experts_w13), self.rounding.fp4(self.experts_w2)
        by_expert, order = torch.sort(chosen.flatten())
        tokens = order // chosen.shape[1]
        counts = torch.bincount(by_expert, minlength=self.config.n_experts).tolist()
        outputs = []
        for expert, inputs in enumerate(x[tokens].split(counts)):
            if inputs.shape[0]:
                gate, up = F.linear(inputs, w13[expert]).chunk(2, -1)
                outputs.append(F.linear(self.rounding.linear_input(self._activate(gate, up)), w2[expert]))
        weighted = torch.cat(outputs) * weights.flatten()[order].unsqueeze(-1)
        return torch.zeros_like(x).index_add(0, tokens, weighted)

    def _activate(self, gate: Tensor, up: Tensor) -> Tensor:
        limit = self.config.swiglu_limit
        return F.silu(gate.clamp(max=limit)) * up.clamp(-limit, limit)
