"""The folder of a training run: `model.pt`, `optimiser.pt`, `mtp.pt`, `progress.json` and `tokenizer.json`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .model import MultiTokenPrediction, TinyV4
from .tokenizer import Tokenizer


@dataclass
class Progress:
    """`spent_seconds` is the share of the time budget that is used up; a new budget starts it at zero."""

    steps: int = 0
    tokens: int = 0
    spent_seconds: float = 0.0


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.loss_path = path / "loss.jsonl"
        self.tokenizer_path = path / "tokenizer.json"

    def tokenizer(self) -> Tokenizer:
        return Tokenizer(self.tokenizer_path)

    def has(self, name: str) -> bool:
        return (self.path / f"{name}.pt").exists()

    def load(self, name: str) -> dict[str, Tensor]:
        """Tensors as float32, whatever they were kept as; integers as they are."""
        tensors = torch.load(self.path / f"{name}.pt", map_location="cpu", weights_only=True)
        return {key: t.float() if t.is_floating_point() else t for key, t in tensors.items()}

    def save(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Replaces the file as a whole, so that a stopped run leaves no half-written one."""
        partial = self.path / f"{name}.pt.partial"
        torch.save({key: t.cpu() for key, t in tensors.items()}, partial)
        os.replace(partial, self.path / f"{name}.pt")

    def progress(self) -> Progress:
        path = self.path / "progress.json"
        return Progress(**json.loads(path.read_text())) if path.exists() else Progress()

    def save_progress(self, progress: Progress) -> None:
        (self.path / "progress.json").write_text(json.dumps(asdict(progress)) + "\n")

    def restore(self, module: nn.Module, name: str) -> None:
        module.load_state_dict(self.load(name))

    def rounded_model(self) -> TinyV4:
        """The model as the exported checkpoint computes it."""
        model = TinyV4(ModelConfig()).eval()
        self.restore(model, "model")
        model.round_norms()
        model.rounding.weights = True
        return model

    def mtp(self, model: TinyV4) -> MultiTokenPrediction:
        layer = MultiTokenPrediction(model.config, model.rounding).eval()
        self.restore(layer, "mtp")
        return layer

    def pack(self) -> None:
        """Keeps the weights in half precision and drops the optimiser, for a folder that travels.

        Half precision moves some weights across a rounding step of their format, so measure and export afterwards.
        """
        for name in ("model", "mtp"):
            if self.has(name):
                self.save(name, {k: t.half() if t.is_floating_point() else t for k, t in self.load(name).items()})
        (self.path / "optimiser.pt").unlink(missing_ok=True)
