"""Muon for the matrices inside the blocks, as DeepSeek-V4 itself uses, and AdamW without decay for everything else."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

MUON_RATE, ADAM_RATE, EMBEDDING_RATE = 0.02, 0.003, 0.01
MUON_MOMENTUM, MUON_DECAY = 0.95, 0.01
ADAM_BETAS, ADAM_EPS = (0.9, 0.98), 1e-9
GRADIENT_NORM_MAX = 1.0


def orthogonalised(gradient: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration on a batch of matrices [count, rows, columns]."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = gradient.shape[-2] > gradient.shape[-1]
    x = gradient.mT if tall else gradient
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        product = x @ x.mT
        x = a * x + (b * product + c * product @ product) @ x
    return x.mT if tall else x


def is_block_matrix(name: str, parameter: Tensor) -> bool:
    inside = name.startswith(("layers.", "block.", "e_proj", "h_proj"))
    return inside and parameter.ndim >= 2 and not name.endswith((".fn", ".ape", ".gate", "weights_proj.weight"))


class Optimiser:
    """With several processes, each orthogonalises its share of the matrices and they exchange the updates."""

    def __init__(self, model: nn.Module, o_groups: int) -> None:
        self.o_groups = o_groups
        self.steps = 0
        named = dict(model.named_parameters())
        self.matrices = {name: p for name, p in named.items() if is_block_matrix(name, p)}
        self.others = {name: p for name, p in named.items() if name not in self.matrices}
        self.momentum = {name: torch.zeros_like(p) for name, p in self.matrices.items()}
        self.means = {name: torch.zeros_like(p) for name, p in self.others.items()}
        self.squares = {name: torch.zeros_like(p) for name, p in self.others.items()}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Applies and clears the gradients; `rate` scales all learning rates."""
        self.steps += 1
        self._step_matrices(rate)
        self._step_others(rate)
        for parameter in (*self.matrices.values(), *self.others.values()):
            parameter.grad = None

    def _step_matrices(self, rate: float) -> None:
        world = dist.get_world_size() if dist.is_initialized() else 1
        rank = dist.get_rank() if world > 1 else 0
        names = [name for name, p in self.matrices.items() if p.grad is not None]
        updates = {}
        for i, name in enumerate(names):
            gradient, momentum = self.matrices[name].grad, self.momentum[name]
            momentum.mul_(MUON_MOMENTUM).add_(gradient, alpha=1 - MUON_MOMENTUM)
            mine = i % world == rank
            nesterov = gradient.lerp(momentum, MUON_MOMENTUM)
            updates[name] = self._update(name, nesterov) if mine else torch.zeros_like(gradient)
        if world > 1:
            flat = torch.cat([update.flatten() for update in updates.values()])
            dist.all_reduce(flat)
            parts = flat.split([update.numel() for update in updates.values()])
            updates = {name: part.view_as(updates[name]) for name, part in zip(updates, parts)}
        for name, update in updates.items():
            self.matrices[name].mul_(1 - rate * MUON_RATE * MUON_DECAY).add_(update, alpha=-rate * MUON_RATE)

    def _update(self, name: str, gradient: Tensor) -> Tensor:
        """Stacked matrices are orthogonalised one by one: experts, their gate and up halves, output groups."""
        matrices = gradient if gradient.ndim == 3 else gradient.unsqueeze(0)
        if name.endswith("experts_w13"):
            matrices = gradient.unflatten(1, (2, -1)).flatten(0, 1)
        elif name.endswith("wo_a.weight"):
            matrices = gradient.unflatten(0, (self.o_groups, -1))
        rows, columns = matrices.shape[-2:]
        return (orthogonalised(matrices) * max(1.0, rows / columns) ** 0.5).reshape(gradient.shape)

    def _step_others(self, rate: float) -> None:
        named = {name: p for name, p in self.others.items() if p.grad is not None}
        nn.utils.clip_grad_norm_(named.values(), GRADIENT_NORM_MAX)
        beta1, beta2 = ADAM_BETAS
        for name, parameter in named.items():
            mean, square = self.means[name], self.squares[name]
            mean.lerp_(parameter.grad, 1 - beta1)
            square.lerp_(parameter.grad.square(), 1 - beta2)
            deviation = (square / (1 - beta2**self.steps)).sqrt().add_(ADAM_EPS)
            learning_rate = rate * (EMBEDDING_RATE if name == "embed" else ADAM_RATE)
            parameter.addcdiv_(mean / (1 - beta1**self.steps), deviation, value=-learning_rate)

    def state(self) -> dict[str, Tensor]:
        flat = {"steps": torch.tensor(self.steps)}
        for prefix in ("momentum", "means", "squares"):
            flat.update({f"{prefix}/{name}": t for name, t in getattr(self, prefix).items()})
        return flat

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.steps = int(state["steps"])
        for prefix in ("momentum", "means", "squares"):
            for name, tensor in getattr(self, prefix).items():
                tensor.copy_(state[f"{prefix}/{name}"])
