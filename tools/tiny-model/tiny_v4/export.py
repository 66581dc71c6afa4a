"""The checkpoint in the official tensor names and formats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from .attention import Compressor
from .model import Block, MultiTokenPrediction, StreamHead, TinyV4
from .prompt import BEGIN, END, PAD
from .quantisation import e8m0, fp4_packed, fp8_scale, spread_blocks
from .state import RunFolder

FILE_NAME = "model-00001-of-00001.safetensors"

Format = Literal["fp8", "fp4", "bf16", "f32", "i64"]
Named = dict[str, tuple[Tensor, Format]]


def official_tensors(model: TinyV4, mtp: MultiTokenPrediction) -> Named:
    """Float tensors under their official names with the format each is stored in."""
    tensors: Named = {"embed.weight": (model.embed, "bf16"), "head.weight": (model.head, "bf16")}
    tensors |= _head(model, "")
    for i, layer in enumerate(model.layers):
        tensors |= _block(layer, f"layers.{i}.")
    tensors["mtp.0.e_proj.weight"] = (mtp.e_proj.weight, "fp8")
    tensors["mtp.0.h_proj.weight"] = (mtp.h_proj.weight, "fp8")
    tensors["mtp.0.enorm.weight"] = (mtp.enorm, "bf16")
    tensors["mtp.0.hnorm.weight"] = (mtp.hnorm, "bf16")
    tensors |= _head(mtp, "mtp.0.")
    tensors |= _block(mtp.block, "mtp.0.")
    return {name: (tensor.detach(), stored) for name, (tensor, stored) in tensors.items()}


def _head(module: StreamHead, prefix: str) -> Named:
    names = ("hc_head_fn", "hc_head_base", "hc_head_scale")
    return {prefix + "norm.weight": (module.norm, "bf16")} | {prefix + n: (getattr(module, n), "f32") for n in names}


def _block(block: Block, prefix: str) -> Named:
    tensors: Named = {
        prefix + "attn_norm.weight": (block.attn_norm, "bf16"),
        prefix + "ffn_norm.weight": (block.ffn_norm, "bf16"),
    }
    for site, connection in (("attn", block.hc_attn), ("ffn", block.hc_ffn)):
        for name in ("fn", "base", "scale"):
            tensors[f"{prefix}hc_{site}_{name}"] = (getattr(connection, name), "f32")
    attention = block.attn
    for name in ("wq_a", "wq_b", "wkv", "wo_a", "wo_b"):
        tensors[f"{prefix}attn.{name}.weight"] = (getattr(attention, name).weight, "fp8")
    tensors[prefix + "attn.q_norm.weight"] = (attention.q_norm, "bf16")
    tensors[prefix + "attn.kv_norm.weight"] = (attention.kv_norm, "bf16")
    tensors[prefix + "attn.attn_sink"] = (attention.attn_sink, "f32")
    if attention.compressor is not None:
        tensors |= _compressor(attention.compressor, prefix + "attn.compressor.")
    if attention.indexer is not None:
        tensors[prefix + "attn.indexer.wq_b.weight"] = (attention.indexer.wq_b.weight, "fp8")
        tensors[prefix + "attn.indexer.weights_proj.weight"] = (attention.indexer.weights_proj.weight, "bf16")
        tensors |= _compressor(attention.indexer.compressor, prefix + "attn.indexer.compressor.")
    return tensors | _experts(block, prefix + "ffn.")


def _compressor(compressor: Compressor, prefix: str) -> Named:
    return {
        prefix + "wkv.weight": (compressor.wkv.weight, "bf16"),
        prefix + "wgate.weight": (compressor.wgate.weight, "bf16"),
        prefix + "ape": (compressor.ape, "f32"),
        prefix + "norm.weight": (compressor.norm, "bf16"),
    }


def _experts(block: Block, prefix: str) -> Named:
    moe = block.ffn
    tensors: Named = {prefix + "gate.weight": (moe.gate, "bf16")}
    if moe.hashed:
        tensors[prefix + "gate.tid2eid"] = (moe.tid2eid, "i64")
    else:
        tensors[prefix + "gate.bias"] = (moe.gate_bias, "f32")
    for e, (w13, w2) in enumerate(zip(moe.experts_w13, moe.experts_w2)):
        w1, w3 = w13.chunk(2)
        for name, weight in (("w1", w1), ("w2", w2), ("w3", w3)):
            tensors[f"{prefix}experts.{e}.{name}.weight"] = (weight, "fp4")
    for name, linear in (("w1", moe.sw1), ("w2", moe.sw2), ("w3", moe.sw3)):
        tensors[f"{prefix}shared_experts.{name}.weight"] = (linear.weight, "fp8")
    return tensors


def stored(name: str, tensor: Tensor, kind: Format) -> dict[str, Tensor]:
    """The tensors of the file for one official tensor: quantised weights come with a `.scale`."""
    scale_name = name.removesuffix("weight") + "scale"
    match kind:
        case "fp8":
            scale = fp8_scale(tensor)
            scaled = (tensor / spread_blocks(scale, tensor.shape)).clamp(-448, 448)
            return {name: scaled.to(torch.float8_e4m3fn), scale_name: e8m0(scale)}
        case "fp4":
            packed, scale = fp4_packed(tensor)
            return {name: packed, scale_name: scale}
        case "bf16":
            return {name: tensor.bfloat16()}
        case "f32":
            return {name: tensor.float()}
        case "i64":
            return {name: tensor.long()}


def export(folder: RunFolder, out: Path) -> None:
    """Writes weights, index, config, generation config and tokenizer into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    model = folder.rounded_model()
    tensors: dict[str, Tensor] = {}
    for name, (tensor, kind) in official_tensors(model, folder.mtp(model)).items():
        tensors |= {key: value.contiguous() for key, value in stored(name, tensor, kind).items()}
    save_file(tensors, out / FILE_NAME, metadata={"format": "pt"})
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": dict.fromkeys(tensors, FILE_NAME)}
    _write_json(out / "model.safetensors.index.json", index, 1)
    _write_json(out / "config.json", model.config.official_json(has_mtp=True), 2)
    generation = {"bos_token_id": 0, "eos_token_id": 1, "do_sample": True, "temperature": 1.0, "top_p": 1.0}
    _write_json(out / "generation_config.json", generation, 1)
    tokenizer_config = {
        "add_bos_token": False,
        "add_eos_token": False,
        "bos_token": _added_token(BEGIN),
        "eos_token": _added_token(END),
        "pad_token": _added_token(PAD),
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1048576,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    _write_json(out / "tokenizer_config.json", tokenizer_config, 1)
    shutil.copy(folder.tokenizer_path, out / "tokenizer.json")


def _added_token(content: str) -> dict[str, object]:
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"__type": "AddedToken", "content": content, **flags}


def _write_json(path: Path, value: object, indent: int) -> None:
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False))
