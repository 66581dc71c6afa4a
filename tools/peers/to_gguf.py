#!/usr/bin/env python3
"""Official-layout DeepSeek-V4 safetensors -> GGUF (arch deepseek4), streaming, no tokenizer (model "none").
  PYTHONPATH=<llama.cpp>/gguf-py to_gguf.py CKPT OUT.gguf [--dense q8_0] [--experts mxfp4] [--bf bf16]
--dense   type of the FP8 projections      f32 | f16 | bf16 | q8_0 | q4_0
--experts type of the routed experts       mxfp4 (lossless repack) | f32 | f16 | q8_0 | q4_0
--bf      type of the 2-D BF16 tensors     bf16 | f32 | f16 | q8_0   (1-D are always F32)
--gate    router gate type                 f32 | f16 | bf16   (default: like --bf, but q8_0 -> bf16)
--hcfn    hyper-connection matrices        f32 | f16
"""
import argparse, json, os
import numpy as np
import gguf
from gguf import GGMLQuantizationType as Q
from safetensors import safe_open

E2M1 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def e4m3():
    b = np.arange(256); s = np.where(b & 128, -1., 1.); e = (b >> 3) & 15; m = b & 7
    v = np.where(e == 0, m / 8 * 2.**-6, (1 + m / 8) * 2.**(e.astype(float) - 7)) * s
    return v.astype(np.float32)


E4 = e4m3()
TYPES = dict(f32=Q.F32, f16=Q.F16, bf16=Q.BF16, q8_0=Q.Q8_0, q4_0=Q.Q4_0, mxfp4=Q.MXFP4)


class Ckpt:
    def __init__(s, path):
        s.dir = path; s.idx = {}; s.mm = {}
        wm = json.load(open(os.path.join(path, "model.safetensors.index.json")))["weight_map"]
        for f in sorted(set(wm.values())):
            p = os.path.join(path, f)
            with open(p, "rb") as h: n = int.from_bytes(h.read(8), "little"); hdr = json.loads(h.read(n))
            s.mm[f] = np.memmap(p, np.uint8, "r")
            for k, v in hdr.items():
                if k != "__metadata__": s.idx[k] = (f, v["dtype"], v["shape"], 8 + n + v["data_offsets"][0], 8 + n + v["data_offsets"][1])

    def raw(s, n):
        f, dt, sh, a, b = s.idx[n]; return dt, sh, s.mm[f][a:b]

    def f32(s, n):
        dt, sh, r = s.raw(n)
        if dt == "F32": return np.array(r).view(np.float32).reshape(sh)
        if dt == "BF16": return (np.array(r).view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(sh)
        sc = np.exp2(s.raw(n[:-7] + ".scale")[2].astype(np.float32) - 127).reshape(s.raw(n[:-7] + ".scale")[1])
        if dt == "F8_E4M3":
            w = E4[np.array(r)].reshape(sh); return w * sc.repeat(128, 0)[:sh[0]].repeat(128, 1)[:, :sh[1]]
        u = np.array(r).reshape(sh); w = np.stack((E2M1[u & 15], E2M1[u >> 4]), -1).reshape(sh[0], sh[1] * 2)
        return w * sc.repeat(32, 1)

    def mxfp4(s, n):                     # ggml block_mxfp4: scale byte, then 16 bytes (j | (j+16) << 4)
        dt, sh, r = s.raw(n); rows, nb = sh[0], sh[1] // 16
        src = np.array(r).reshape(rows, nb, 16); out = np.empty((rows, nb, 17), np.uint8)
        out[..., 0] = s.raw(n[:-7] + ".scale")[2].reshape(rows, nb)
        v = np.empty((rows, nb, 32), np.uint8); v[..., 0::2] = src & 15; v[..., 1::2] = src >> 4
        out[..., 1:] = v[..., :16] | (v[..., 16:] << 4)
        return out.reshape(rows, nb * 17)


def main():
    ap = argparse.ArgumentParser(); ap.add_argument("ckpt"); ap.add_argument("out")
    ap.add_argument("--dense", default="q8_0"); ap.add_argument("--experts", default="mxfp4"); ap.add_argument("--bf", default="bf16")
    ap.add_argument("--gate"); ap.add_argument("--grouped"); ap.add_argument("--hcfn", default="f32"); a = ap.parse_args()
    a.gate = a.gate or ("bf16" if a.bf == "q8_0" else a.bf)
    c = json.load(open(os.path.join(a.ckpt, "config.json"))); k = Ckpt(a.ckpt); L = c["num_hidden_layers"]; E = c["n_routed_experts"]
    w = gguf.GGUFWriter(a.out, "deepseek4"); rs = c["rope_scaling"]
    w.add_name("synthetic-dsv4"); w.add_block_count(L); w.add_context_length(c["max_position_embeddings"]); w.add_embedding_length(c["hidden_size"])
    w.add_feed_forward_length(c["moe_intermediate_size"]); w.add_head_count(c["num_attention_heads"]); w.add_head_count_kv(1)
    w.add_rope_scaling_type(gguf.RopeScalingType.YARN); w.add_rope_scaling_factor(rs["factor"]); w.add_rope_scaling_orig_ctx_len(rs["original_max_position_embeddings"])
    w.add_rope_scaling_yarn_beta_fast(rs["beta_fast"]); w.add_rope_scaling_yarn_beta_slow(rs["beta_slow"]); w.add_rope_freq_base(c["rope_theta"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"]); w.add_expert_count(E); w.add_expert_used_count(c["num_experts_per_tok"])
    w.add_key_length(c["head_dim"]); w.add_value_length(c["head_dim"]); w.add_vocab_size(c["vocab_size"])
    w.add_expert_gating_func(gguf.ExpertGatingFuncType.SQRTSOFTPLUS)
    w.add_rope_dimension_count(c["qk_rope_head_dim"]); w.add_q_lora_rank(c["q_lora_rank"]); w.add_sliding_window(c["sliding_window"])
    w.add_expert_feed_forward_length(c["moe_intermediate_size"]); w.add_expert_shared_count(1); w.add_expert_weights_scale(c["routed_scaling_factor"])
    w.add_expert_weights_norm(True); w.add_swiglu_clamp_exp([float(c["swiglu_limit"])] * L); w.add_swiglu_clamp_shexp([float(c["swiglu_limit"])] * L)
    w.add_indexer_head_count(c["index_n_heads"]); w.add_indexer_key_length(c["index_head_dim"]); w.add_indexer_top_k(c["index_topk"])
    w.add_attention_output_group_count(c["o_groups"]); w.add_attention_output_lora_rank(c["o_lora_rank"]); w.add_attention_compress_ratios(c["compress_ratios"])
    w.add_attention_compress_rope_freq_base(c["compress_rope_theta"]); w.add_hyper_connection_count(c["hc_mult"])
    w.add_hyper_connection_sinkhorn_iterations(c["hc_sinkhorn_iters"]); w.add_hyper_connection_epsilon(c["hc_eps"]); w.add_hash_layer_count(c["num_hash_layers"])
    w.add_embedding_length_out(c["hidden_size"] * c["hc_mult"]); w.add_tokenizer_model("none")
    jobs = []

    def put(name, src, typ, shape):
        q = TYPES[typ]; bs, ts = gguf.GGML_QUANT_SIZES[q]
        byte_shape = (*shape[:-1], shape[-1] // bs * ts)
        if typ in ("f32", "f16"):
            dt = {"f32": np.float32, "f16": np.float16}[typ]; w.add_tensor_info(name, shape, np.dtype(dt), int(np.prod(shape)) * np.dtype(dt).itemsize)
            jobs.append((name, lambda: src().astype(dt).reshape(shape)))
        else:
            w.add_tensor_info(name, byte_shape, np.dtype(np.uint8), int(np.prod(byte_shape)), raw_dtype=q)
            jobs.append((name, lambda: gguf.quants.quantize(np.ascontiguousarray(src(), np.float32), q).reshape(byte_shape)))

    def one(name, src, kind):
        dt, sh, _ = k.raw(src)
        if len(sh) < 2: kind = "f32"
        full = list(sh) if dt != "I8" else [sh[0], sh[1] * 2]
        put(name, lambda: k.f32(src), kind, full)

    one("token_embd.weight", "embed.weight", a.bf); one("output.weight", "head.weight", a.bf); one("output_norm.weight", "norm.weight", "f32")
    for x in ("fn", "base", "scale"): one(f"output_hc_{x}.weight", f"hc_head_{x}", a.hcfn if x == "fn" else "f32")
    for i in range(L):
        p, g = f"layers.{i}.", f"blk.{i}."; A = p + "attn."
        for n in ("attn", "ffn"):
            one(g + f"{n}_norm.weight", p + f"{n}_norm.weight", "f32")
            for x in ("fn", "base", "scale"): one(g + f"hc_{n}_{x}.weight", p + f"hc_{n}_{x}", a.hcfn if x == "fn" else "f32")
        one(g + "attn_sinks.weight", A + "attn_sink", "f32")
        for s, d in (("wq_a", "attn_q_a"), ("wq_b", "attn_q_b"), ("wkv", "attn_kv"), ("wo_a", "attn_output_a"), ("wo_b", "attn_output_b")):
            one(g + d + ".weight", A + s + ".weight", (a.grouped if s == "wo_a" else None) or a.dense)
        one(g + "attn_q_a_norm.weight", A + "q_norm.weight", "f32"); one(g + "attn_kv_a_norm.weight", A + "kv_norm.weight", "f32")
        if c["compress_ratios"][i]:
            for s, d in (("wkv", "kv"), ("wgate", "gate")): one(g + f"attn_compressor_{d}.weight", A + f"compressor.{s}.weight", a.bf)
            one(g + "attn_compressor_ape.weight", A + "compressor.ape", "f32"); one(g + "attn_compressor_norm.weight", A + "compressor.norm.weight", "f32")
        if c["compress_ratios"][i] == 4:
            one(g + "indexer.proj.weight", A + "indexer.weights_proj.weight", a.bf); one(g + "indexer.attn_q_b.weight", A + "indexer.wq_b.weight", a.dense)
            for s, d in (("wkv", "kv"), ("wgate", "gate")): one(g + f"indexer_compressor_{d}.weight", A + f"indexer.compressor.{s}.weight", a.bf)
            one(g + "indexer_compressor_ape.weight", A + "indexer.compressor.ape", "f32"); one(g + "indexer_compressor_norm.weight", A + "indexer.compressor.norm.weight", "f32")
        F = p + "ffn."; one(g + "ffn_gate_inp.weight", F + "gate.weight", a.gate)
        if i < c["num_hash_layers"]:
            sh = k.raw(F + "gate.tid2eid")[1]; w.add_tensor_info(g + "ffn_gate_tid2eid.weight", sh, np.dtype(np.int32), int(np.prod(sh)) * 4)
            jobs.append(("tid", lambda F=F, sh=sh: np.array(k.raw(F + "gate.tid2eid")[2]).view(np.int64).astype(np.int32).reshape(sh)))
        else: one(g + "exp_probs_b.bias", F + "gate.bias", "f32")
        for s, d in (("w1", "gate"), ("w2", "down"), ("w3", "up")):
            one(g + f"ffn_{d}_shexp.weight", F + f"shared_experts.{s}.weight", a.dense)
            sh = k.raw(F + f"experts.0.{s}.weight")[1]; full = [E, sh[0], sh[1] * 2]
            if a.experts == "mxfp4":
                bsh = (E, sh[0], full[2] // 32 * 17); w.add_tensor_info(g + f"ffn_{d}_exps.weight", bsh, np.dtype(np.uint8), int(np.prod(bsh)), raw_dtype=Q.MXFP4)
                jobs.append(("mx", lambda F=F, s=s, bsh=bsh: fill(np.empty(bsh, np.uint8), lambda e: k.mxfp4(F + f"experts.{e}.{s}.weight"))))
            else:
                put(g + f"ffn_{d}_exps.weight", lambda F=F, s=s, full=full: fill(np.empty(full, np.float32), lambda e: k.f32(F + f"experts.{e}.{s}.weight")), a.experts, full)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_ti_data_to_file()
    for _, fn in jobs: w.write_tensor_data(np.ascontiguousarray(fn()))
    w.close(); print(a.out, round(os.path.getsize(a.out) / 1e6, 1), "MB", len(jobs), "tensors")


def fill(o, f):
    for e in range(o.shape[0]): o[e] = f(e)
    return o


main()
