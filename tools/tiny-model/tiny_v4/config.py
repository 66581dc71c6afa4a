"""The sizes and constants of the model, and its config.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ModelConfig:
    """Every value that is not a size is that of the released model, so that an engine takes the same code paths."""

    vocab_size: int = 2048
    dim: int = 128
    n_heads: int = 2
    head_dim: int = 128
    rope_dim: int = 64
    q_lora_rank: int = 128
    o_groups: int = 2
    o_lora_rank: int = 64
    compress_ratios: tuple[int, ...] = (0, 0, 4, 128, 4)
    """For each layer: 0 sliding window only, 4 compressed sparse, 128 heavily compressed attention."""
    n_hash_layers: int = 1
    n_experts: int = 8
    n_active_experts: int = 2
    expert_dim: int = 128
    index_heads: int = 2
    index_dim: int = 128
    index_topk: int = 32
    window: int = 128
    streams: int = 4
    sinkhorn_iterations: int = 20
    hyper_eps: float = 1e-6
    norm_eps: float = 1e-6
    routed_scaling: float = 1.5
    swiglu_limit: float = 10.0
    rope_theta: float = 10000.0
    compress_rope_theta: float = 160000.0
    yarn_factor: float = 16.0
    yarn_original_positions: int = 65536
    yarn_beta_fast: int = 32
    yarn_beta_slow: int = 1

    def __post_init__(self) -> None:
        assert self.streams == 4, "the fused kernels and the format of hc_*_fn know four streams"
        assert self.n_active_experts == 2, "the hash table of the first layers names two experts a token"

    def official_json(self, has_mtp: bool) -> dict[str, Any]:
        """config.json in the key set of the official checkpoint."""
        return {
            "architectures": ["DeepseekV4ForCausalLM"],
            "model_type": "deepseek_v4",
            "torch_dtype": "bfloat16",
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 2,
            "vocab_size": self.vocab_size,
            "hidden_size": self.dim,
            "moe_intermediate_size": self.expert_dim,
            "num_hidden_layers": len(self.compress_ratios),
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": 1,
            "head_dim": self.head_dim,
            "qk_rope_head_dim": self.rope_dim,
            "q_lora_rank": self.q_lora_rank,
            "o_lora_rank": self.o_lora_rank,
            "o_groups": self.o_groups,
            "hidden_act": "silu",
            "swiglu_limit": self.swiglu_limit,
            "rms_norm_eps": self.norm_eps,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "max_position_embeddings": 1048576,
            "sliding_window": self.window,
            "rope_theta": self.rope_theta,
            "compress_rope_theta": self.compress_rope_theta,
            "rope_scaling": {
                "type": "yarn",
                "factor": self.yarn_factor,
                "original_max_position_embeddings": self.yarn_original_positions,
                "beta_fast": self.yarn_beta_fast,
                "beta_slow": self.yarn_beta_slow,
            },
            "compress_ratios": [*self.compress_ratios, *([0] if has_mtp else [])],
            "index_n_heads": self.index_heads,
            "index_head_dim": self.index_dim,
            "index_topk": self.index_topk,
            "hc_mult": self.streams,
            "hc_sinkhorn_iters": self.sinkhorn_iterations,
            "hc_eps": self.hyper_eps,
            "n_routed_experts": self.n_experts,
            "n_shared_experts": 1,
            "num_experts_per_tok": self.n_active_experts,
            "norm_topk_prob": True,
            "routed_scaling_factor": self.routed_scaling,
            "scoring_func": "sqrtsoftplus",
            "topk_method": "noaux_tc",
            "num_hash_layers": self.n_hash_layers,
            "num_nextn_predict_layers": int(has_mtp),
            "tie_word_embeddings": False,
            "use_cache": True,
            "expert_dtype": "fp4",
            "quantization_config": {
                "quant_method": "fp8",
                "fmt": "e4m3",
                "activation_scheme": "dynamic",
                "weight_block_size": [128, 128],
                "scale_fmt": "ue8m0",
            },
        }
