"""The training loop: time-based schedule, several one-thread processes that average their gradients."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor

from .config import ModelConfig
from .data import mixture
from .initialisation import lay_out_copying
from .model import Losses, TinyV4
from .optimiser import Optimiser
from .packing import Batch, Packer
from .state import RunFolder

INDEXER_LOSS_WEIGHT, BALANCE_LOSS_WEIGHT = 0.2, 0.01
BIAS_RATE = 0.003
"""Step of the routing biases towards even load."""
LOG_SECONDS, SAVE_SECONDS = 20, 120
RATE_MIN = 0.01


@dataclass(frozen=True)
class Plan:
    """What one call of `train` does. Times from `sparse_from` on are shares of the time budget."""

    folder: Path
    minutes: float
    processes: int
    device: str
    rows: int
    """Rows of 512 tokens a process and step."""
    seed: int
    peak_rate: float
    new_budget: bool
    decay_from: float
    """The learning rate falls in a straight line from here to the end."""
    sparse_from: float
    """Before, all compressed entries are read, so that the indexer has something to learn from."""
    round_weights_from: float
    """From here on the forward pass sees the weights in the formats of the checkpoint."""
    long_rows_from: float
    long_rows_every: int
    warmup_steps: int
    port: int

    def rate(self, done: float, step: int) -> float:
        falling = 1.0 if done < self.decay_from else max(RATE_MIN, (1 - done) / (1 - self.decay_from))
        return self.peak_rate * falling * min(1.0, (step + 1) / self.warmup_steps)

    def row_kind(self, done: float, step: int) -> str:
        """Every so many steps long rows, every third time of these very long ones."""
        if done <= self.long_rows_from or (step + 1) % self.long_rows_every:
            return "short"
        return "very_long" if step % (3 * self.long_rows_every) == self.long_rows_every - 1 else "long"


def train(plan: Plan) -> None:
    if plan.processes == 1:
        _run(0, plan)
    else:
        torch.multiprocessing.spawn(_run, args=(plan,), nprocs=plan.processes, join=True)


def _run(rank: int, plan: Plan) -> None:
    if plan.device == "cpu":
        # Two threads of one process wait for each other at every small operation: a process for each core is faster.
        torch.set_num_threads(1)
    if plan.processes > 1:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        os.environ.setdefault("MASTER_PORT", str(plan.port))
        dist.init_process_group("gloo", rank=rank, world_size=plan.processes)
    Trainer(rank, plan).run()
    if plan.processes > 1:
        dist.barrier()
        dist.destroy_process_group()


class Trainer:
    def __init__(self, rank: int, plan: Plan) -> None:
        self.rank, self.plan, self.folder = rank, plan, RunFolder(plan.folder)
        torch.manual_seed(plan.seed)
        self.model = TinyV4(ModelConfig())
        if self.folder.has("model"):
            self.folder.restore(self.model, "model")
        else:
            lay_out_copying(self.model)
        self.model.to(plan.device).train()
        self.optimiser = Optimiser(self.model, self.model.config.o_groups)
        if self.folder.has("optimiser"):
            self.optimiser.load_state(self.folder.load("optimiser"))
        self.progress = self.folder.progress()
        if plan.new_budget:
            self.progress.spent_seconds = 0.0
        self.spent_before = self.progress.spent_seconds
        self.packers = self._packers()
        self.means: dict[str, float] = {}

    def _packers(self) -> dict[str, tuple[Packer, int]]:
        """Packer and rows for each kind of step; the seed depends on the step, so that no document comes twice."""
        seed = self.plan.seed * 1000 + self.rank + 77 * self.progress.steps
        rows, tokenizer = self.plan.rows, self.folder.tokenizer()
        short = Packer(tokenizer, seed, 512, mixture.SHORT_ROWS)
        long = Packer(tokenizer, seed + 500, 2048, mixture.LONG_ROWS, (300, 600, 900, 1200, 1500), 0.5)
        very_long = Packer(tokenizer, seed + 700, 4096, mixture.LONG_ROWS, (1000, 2000, 2800, 3400), 0.6)
        return {"short": (short, rows), "long": (long, max(1, rows // 4)), "very_long": (very_long, max(1, rows // 8))}

    def run(self) -> None:
        started = logged = saved = time.time()
        tokens_before = self.progress.tokens
        while (done := self._share_done(started)) < 1.0:
            rate = self._set_phase(done)
            batch, losses = self._step(rate, self.plan.row_kind(done, self.progress.steps))
            self.progress.steps += 1
            self.progress.tokens += batch.ids.numel() * self.plan.processes
            if self.rank > 0:
                continue
            self._average(batch, losses)
            now = time.time()
            if now - logged > LOG_SECONDS:
                logged = now
                self._log(done, rate, (self.progress.tokens - tokens_before) / (now - started))
            if now - saved > SAVE_SECONDS:
                saved = now
                self._save(started)
        if self.rank == 0:
            self._save(started)

    def _share_done(self, started: float) -> float:
        """Of the budget, by the clock of process 0: all processes must take the same decisions."""
        share = torch.tensor((self.spent_before + time.time() - started) / (self.plan.minutes * 60))
        if self.plan.processes > 1:
            dist.broadcast(share, 0)
        return float(share)

    def _set_phase(self, done: float) -> float:
        self.model.sparse = done > self.plan.sparse_from
        self.model.rounding.weights = done > self.plan.round_weights_from
        return self.plan.rate(done, self.progress.steps)

    def _step(self, rate: float, row_kind: str) -> tuple[Batch, Losses]:
        packer, rows = self.packers[row_kind]
        batch = Batch(*(t.to(self.plan.device) for t in packer.batch(rows)))
        losses = self.model.losses(batch.ids, batch.documents, batch.targets(), batch.weights)
        (losses.language + INDEXER_LOSS_WEIGHT * losses.indexer + BALANCE_LOSS_WEIGHT * losses.balance).backward()
        if self.plan.processes > 1:
            self._average_gradients()
        self.optimiser.step(rate)
        self._balance(rate)
        return batch, losses

    def _average_gradients(self) -> None:
        parameters = list(self.model.parameters())
        flat = torch.cat([parameter.grad.flatten() for parameter in parameters])
        dist.all_reduce(flat)
        flat /= self.plan.processes
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters])):
            parameter.grad.copy_(part.view_as(parameter))

    @torch.no_grad()
    def _balance(self, rate: float) -> None:
        """Moves the routing biases towards even load, without a loss."""
        for layer in self.model.layers:
            if layer.ffn.load is not None:
                load = layer.ffn.load.clone()
                if self.plan.processes > 1:
                    dist.all_reduce(load)
                    load /= self.plan.processes
                layer.ffn.gate_bias += BIAS_RATE * rate * torch.sign(1.0 / load.numel() - load)

    def _average(self, batch: Batch, losses: Losses) -> None:
        """Running means of the loss per answer token, by kind of document."""
        counted = batch.weights.flatten() > 0
        kinds, weights = batch.kinds.flatten()[counted], batch.weights.flatten()[counted]
        for i, kind in enumerate(mixture.KINDS):
            # Answer tokens weigh at least 0.2, prompt tokens 0.1.
            mine = (kinds == i) & (weights > 0.15)
            if mine.any():
                self._mean(kind, losses.cross_entropies[mine].mean())
        self._mean("indexer", losses.indexer)
        self._mean("all", losses.language)

    def _mean(self, name: str, value: Tensor) -> None:
        value = float(value.detach())
        self.means[name] = 0.9 * self.means.get(name, value) + 0.1 * value

    def _log(self, done: float, rate: float, speed: float) -> None:
        record: dict[str, Any] = {
            "done": round(done, 4),
            "step": self.progress.steps,
            "tokens": self.progress.tokens,
            "tokens_per_second": round(speed),
            "rate": round(rate, 3),
            **{name: round(value, 4) for name, value in self.means.items()},
        }
        print(" ".join(f"{key} {value}" for key, value in record.items()), flush=True)
        with self.folder.loss_path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def _save(self, started: float) -> None:
        self.progress.spent_seconds = self.spent_before + time.time() - started
        self.folder.save("model", self.model.state_dict())
        self.folder.save("optimiser", self.optimiser.state())
        self.folder.save_progress(self.progress)
