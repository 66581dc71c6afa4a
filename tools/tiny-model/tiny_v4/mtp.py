"""Training of the multi-token-prediction layer on the finished, frozen model."""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F

from .data import mixture
from .model import MultiTokenPrediction
from .optimiser import Optimiser
from .packing import Packer
from .state import RunFolder
from .training import BALANCE_LOSS_WEIGHT, BIAS_RATE, LOG_SECONDS, RATE_MIN

WARMUP_STEPS, DECAY_FROM = 20, 0.4


def train_mtp(folder: RunFolder, minutes: float, rows: int, seed: int) -> None:
    """Goes on from `mtp.pt` where there is one, and writes it; reports how often the token after next is right."""
    torch.manual_seed(seed + 9)
    model = folder.rounded_model()
    layer = MultiTokenPrediction(model.config, model.rounding)
    if folder.has("mtp"):
        folder.restore(layer, "mtp")
    layer.train()
    head = model.rounding.bf16(model.head).detach()
    optimiser = Optimiser(layer, model.config.o_groups)
    packer = Packer(folder.tokenizer(), seed + 4242, 512, mixture.SHORT_ROWS)
    started = logged = time.time()
    loss_mean = right_mean = None
    while (done := (time.time() - started) / (minutes * 60)) < 1:
        batch = packer.batch(rows)
        after_next = torch.roll(batch.ids, -2, 1)
        # Position t predicts t + 2, so t + 1 must lie in the same document.
        inside = F.pad(batch.documents[:, 1:] == batch.documents[:, :-1], (0, 1), value=False)
        weights = (torch.roll(batch.weights, -1, 1) * inside).flatten()
        counted = weights > 0
        with torch.no_grad():
            streams, context, _, _ = model.streams(batch.ids, batch.documents)
        hidden, balance = layer(streams, batch.targets(), model.embed.detach(), context)
        logits = F.linear(hidden.flatten(0, 1)[counted], head)
        targets, weights = after_next.flatten()[counted], weights[counted]
        loss = (F.cross_entropy(logits, targets, reduction="none") * weights).sum() / weights.sum()
        (loss + BALANCE_LOSS_WEIGHT * balance).backward()
        falling = 1.0 if done < DECAY_FROM else max(RATE_MIN, (1 - done) / (1 - DECAY_FROM))
        optimiser.step(falling * min(1.0, (optimiser.steps + 1) / WARMUP_STEPS))
        gate, load = layer.block.ffn.gate_bias, layer.block.ffn.load
        gate += BIAS_RATE * torch.sign(1.0 / load.numel() - load)
        answers = weights > 0.15
        right = float((logits.argmax(-1) == targets)[answers].float().mean())
        loss_mean = loss.item() if loss_mean is None else 0.95 * loss_mean + 0.05 * loss.item()
        right_mean = right if right_mean is None else 0.95 * right_mean + 0.05 * right
        if time.time() - logged > LOG_SECONDS:
            logged = time.time()
            print(f"mtp done {done:.3f} step {optimiser.steps} loss {loss_mean:.3f} right {right_mean:.3f}", flush=True)
    folder.save("mtp", layer.state_dict())
    print(f"mtp: {optimiser.steps} steps, token after next right in {right_mean:.1%} of the answer tokens")
