"""The kernels of `fused.c` as differentiable functions.

Compiled with the system's C compiler at the first use; without one everything still runs, at about half the speed.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

SOURCE = Path(__file__).with_name("fused.c")
BUILT = SOURCE.with_name("build") / "fused.so"
COMPILE = "cc -O3 -march=native -ffast-math -mprefer-vector-width=512 -fPIC -shared".split()

enabled = True
"""Cleared by the check, to compare with the plain operations."""


def usable(x: Tensor) -> bool:
    return enabled and x.device.type == "cpu" and x.dtype == torch.float32 and kernels() is not None


@functools.cache
def kernels() -> ctypes.CDLL | None:
    """The compiled library; None, with a warning, where it does not compile."""
    if not BUILT.exists() or BUILT.stat().st_mtime < SOURCE.stat().st_mtime:
        BUILT.parent.mkdir(exist_ok=True)
        # Several processes may build at once: each writes its own file, renaming is atomic.
        with tempfile.NamedTemporaryFile(dir=BUILT.parent, delete=False) as file:
            command = [*COMPILE, str(SOURCE), "-o", file.name, "-lmvec", "-lm"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            os.unlink(file.name)
            reason = getattr(error, "stderr", error)
            warnings.warn(f"fused kernels not compiled, going on without: {reason}", stacklevel=2)
            return None
        os.replace(file.name, BUILT)
    return ctypes.CDLL(str(BUILT))


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Tensors (contiguous) as pointers, None as a null pointer, int as long, float as float."""
    converted: list[Any] = []
    for argument in arguments:
        if argument is None:
            converted.append(ctypes.c_void_p())
        elif isinstance(argument, Tensor):
            assert argument.is_contiguous()
            converted.append(ctypes.c_void_p(argument.data_ptr()))
        else:
            converted.append(ctypes.c_long(argument) if isinstance(argument, int) else ctypes.c_float(argument))
    library = kernels()
    assert library is not None, "callers ask usable() first"
    getattr(library, name)(*converted)


class HyperRead(Function):
    """See operations.hyper_read."""

    @staticmethod
    def forward(ctx, x, mixing, scale, base, iterations, norm_eps, hyper_eps):
        x = x.contiguous()
        batch, length, streams, dim = x.shape
        tokens = batch * length
        products = x.view(tokens, streams * dim) @ mixing.t()
        output = x.new_empty(batch, length, dim)
        read, inverse_rms = x.new_empty(tokens, streams), x.new_empty(tokens)
        write, combination = x.new_empty(batch, length, streams), x.new_empty(batch, length, streams, streams)
        logits = x.new_empty(tokens, streams * streams)
        call("hyper_read_forward", x, products, scale, base, output, read, write, logits, combination, inverse_rms,
             tokens, dim, iterations, norm_eps, hyper_eps)  # fmt: skip
        ctx.save_for_backward(x, mixing, products, scale, read, write, logits, inverse_rms)
        ctx.constants = (iterations, hyper_eps)
        return output, write, combination

    @staticmethod
    def backward(ctx, output_grad, write_grad, combination_grad):
        x, mixing, logits, scale, read, write, combination_logits, inverse_rms = ctx.saved_tensors
        iterations, hyper_eps = ctx.constants
        batch, length, streams, dim = x.shape
        tokens = batch * length
        output_grad = output_grad.contiguous()
        # Before and behind the scale of the logits, and the share of x through its norm.
        gate_grad, product_grad, norm_grad = torch.empty_like(logits), torch.empty_like(logits), x.new_empty(tokens)
        call("hyper_read_backward_gates", x, logits, scale, read, write, combination_logits, inverse_rms, output_grad,
             write_grad.contiguous(), combination_grad.contiguous(), gate_grad, product_grad, norm_grad, tokens, dim,
             iterations, hyper_eps)  # fmt: skip
        x_grad = product_grad @ mixing
        call("hyper_read_backward_streams", x, read, output_grad, norm_grad, x_grad, tokens, dim)
        by_logit = (gate_grad * logits).sum(0)
        scale_grad = torch.stack([part.sum() for part in by_logit.split([streams, streams, streams * streams])])
        mixing_grad = product_grad.t() @ x.view(tokens, streams * dim)
        return x_grad.view_as(x), mixing_grad, scale_grad, gate_grad.sum(0), None, None, None


class HyperWrite(Function):
    """See operations.hyper_write."""

    @staticmethod
    def forward(ctx, output, x, write, combination):
        saved = output, x, write, combination = [t.contiguous() for t in (output, x, write, combination)]
        batch, length, _, dim = x.shape
        streams = torch.empty_like(x)
        call("hyper_write_forward", output, x, write, combination, streams, batch * length, dim)
        ctx.save_for_backward(*saved)
        return streams

    @staticmethod
    def backward(ctx, grad):
        saved = ctx.saved_tensors
        batch, length, _, dim = grad.shape
        grads = [torch.empty_like(t) for t in saved]
        call("hyper_write_backward", *saved, grad.contiguous(), *grads, batch * length, dim)
        return tuple(grads)


class NormRope(Function):
    """See operations.norm_rope."""

    @staticmethod
    def forward(ctx, x, weight, angles, heads, normalise, inverse, eps):
        x = x.contiguous()
        dim = x.shape[-1]
        rows = x.numel() // dim
        cosine, sine = angles if angles is not None else (None, None)
        length, pairs = cosine.shape if angles is not None else (1, 0)
        output, inverse_rms = torch.empty_like(x), x.new_empty(rows if normalise else 1)
        ctx.shape = (rows, heads, length, dim, pairs, int(normalise), -1.0 if inverse else 1.0)
        call("norm_rope_forward", x, weight, cosine, sine, output, inverse_rms, *ctx.shape, eps)
        ctx.save_for_backward(x, weight, cosine, sine, inverse_rms)
        return output

    @staticmethod
    def backward(ctx, grad):
        x, weight, cosine, sine, inverse_rms = ctx.saved_tensors
        x_grad, weight_grad = torch.empty_like(x), None if weight is None else torch.zeros_like(weight)
        call("norm_rope_backward", x, weight, cosine, sine, inverse_rms, grad.contiguous(), x_grad, weight_grad,
             *ctx.shape)  # fmt: skip
        return x_grad, weight_grad, None, None, None, None, None


class AttentionWeights(Function):
    """See operations.attention_weights."""

    @staticmethod
    def forward(ctx, window, compressed, window_hidden, compressed_hidden, sink, scale):
        window, window_hidden = window.contiguous(), window_hidden.contiguous()
        if compressed is not None:
            compressed, compressed_hidden = compressed.contiguous(), compressed_hidden.contiguous()
        batch, blocks, heads, width, keys = window.shape
        entries = 0 if compressed is None else compressed.shape[-1]
        window_out = torch.empty_like(window)
        compressed_out = window.new_empty(batch, heads, blocks * width, entries)
        sink_out = window.new_empty(batch * blocks * heads * width)
        ctx.shape = (batch, blocks, heads, width, keys, entries, scale)
        call("attention_weights_forward", window, compressed, window_hidden, compressed_hidden, sink, window_out,
             compressed_out, sink_out, *ctx.shape)  # fmt: skip
        ctx.save_for_backward(window_out, compressed_out, sink_out)
        return window_out, compressed_out

    @staticmethod
    def backward(ctx, window_grad, compressed_grad):
        window_out, compressed_out, sink_out = ctx.saved_tensors
        _, _, heads, *_, entries, _ = ctx.shape
        window_in, compressed_in = torch.empty_like(window_out), torch.empty_like(compressed_out)
        sink_in = window_out.new_zeros(heads)
        call("attention_weights_backward", window_out, compressed_out, sink_out, window_grad.contiguous(),
             compressed_grad.contiguous(), window_in, compressed_in, sink_in, *ctx.shape)  # fmt: skip
        return window_in, compressed_in if entries else None, None, None, sink_in, None
