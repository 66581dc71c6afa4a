"""Checks of the implementation: fused kernels, packed documents, exported files in transformers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from . import fused
from .cases import Case
from .data import mixture
from .export import export
from .model import TinyV4
from .packing import Packer
from .prompt import PAD_ID
from .state import RunFolder

LOGIT_TOLERANCE = 1e-3
GRADIENT_TOLERANCE = 1e-3
"""Relative to the largest element of a parameter's gradient."""
NEAR_TIES_MAX = 1e-3
"""Two almost equal scores of the indexer or the router may come out in the other order."""


def check_kernels(folder: RunFolder) -> None:
    """Losses and gradients of the fused kernels against the plain operations, on a training batch."""
    batch = Packer(folder.tokenizer(), 5, 512, mixture.SHORT_ROWS).batch(1)
    gradients: list[dict[str, Tensor]] = []
    for fused.enabled in (False, True):
        model = folder.rounded_model().train()
        losses = model.losses(batch.ids, batch.documents, batch.targets(), batch.weights)
        (losses.language + losses.indexer + losses.balance).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    plain, kernels = gradients
    worst = max(float((plain[n] - kernels[n]).abs().max() / plain[n].abs().max().clamp_min(1e-9)) for n in plain)
    report("fused kernels: largest relative difference of a gradient", worst, GRADIENT_TOLERANCE)


@torch.no_grad()
def check_packing(model: TinyV4) -> None:
    """A document behind another one in a row must see nothing of it."""
    window = model.config.window
    rng = Random(1)
    first, second = (torch.tensor([[rng.randrange(10, model.config.vocab_size) for _ in range(n * window)]])
                     for n in (2, 3))  # fmt: skip
    documents = torch.cat([torch.zeros_like(first), torch.ones_like(second)], 1)
    together = model(torch.cat([first, second], 1), documents)[:, first.shape[1] :]
    worst = float((together - model(second)).abs().max())
    report("packed documents: largest difference of a logit", worst, LOGIT_TOLERANCE)


@torch.no_grad()
def check_transformers(folder: RunFolder, model: TinyV4, cases: list[Case]) -> None:
    """The exported files, read and dequantised by transformers, against this model."""
    from transformers import AutoModelForCausalLM, FineGrainedFP8Config

    tokenizer = folder.tokenizer()
    with tempfile.TemporaryDirectory() as out:
        export(folder, Path(out))
        quantisation = FineGrainedFP8Config(dequantize=True)
        other = AutoModelForCausalLM.from_pretrained(out, quantization_config=quantisation, dtype=torch.float32)
        # The quantised weights come out as bf16 all the same, which holds them exactly.
        other = other.float().eval()
        differing = positions = 0
        for case in cases[:: len(cases) // 12]:
            ids = tokenizer.encode(case.prompt + case.expected)
            padded = ids + [PAD_ID] * (-len(ids) % model.config.window)
            mine = model(torch.tensor([padded]))[:, : len(ids)]
            differences = (mine - other(torch.tensor([ids])).logits).abs().amax(-1)
            differing += int((differences > LOGIT_TOLERANCE).sum())
            positions += len(ids)
    report("transformers: share of positions with other logits", differing / positions, NEAR_TIES_MAX)


def report(what: str, value: float, tolerance: float) -> None:
    print(f"{what}: {value:.2e} (at most {tolerance:.0e})")
    assert value <= tolerance, what
