"""The torch decoder's logits against transformers' in float32: ||difference|| / ||reference|| <= 1e-4 at every position.

Small random checkpoints (Llama 3, Qwen 2, Qwen 3, Gemma 3) are written by transformers itself, with every feature switched on; those
that GGUF can express are written by gguf-python too. SmolLM2-135M and Gemma-3-270M are read from their GGUF by gguf-python, built in
transformers by hand, and scored on real text, Gemma on more tokens than its sliding window of 512 sees; they are left out where they
have not been fetched. The C++ side is nn_test's Interop.WritesTheLogitsOfEveryJob.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from gguf import GGUFReader, GGUFWriter
from gguf.quants import dequantize
from safetensors import safe_open
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.utils import logging

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("LIGHTEN_BUILD", "build"))
CACHE = pathlib.Path(
    os.environ.get("LIGHTEN_DATA") or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "lighten"
)
LIMIT = 1e-4

SMALL = dict(vocab_size=320, hidden_size=96, intermediate_size=160, num_hidden_layers=4, num_attention_heads=6,
             num_key_value_heads=2, max_position_embeddings=2048, rms_norm_eps=1e-5)  # fmt: skip


def rope(kind="default", theta=10000.0, **more):
    return {"rope_type": kind, "rope_theta": theta, **more}


def random_models():
    """name -> (model, dtype it is saved in, shard size)"""
    llama3 = rope("llama3", 500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=256)
    llama3_8192 = {**llama3, "original_max_position_embeddings": 8192}
    return {
        # The middle frequencies of a 32-wide head fall between the two limits of llama3 scaling with this original context.
        "llama3": (LlamaForCausalLM(LlamaConfig(**SMALL, head_dim=32, rope_parameters=llama3, tie_word_embeddings=False,
                                                attention_bias=True, mlp_bias=True)), torch.float32, "5GB"),
        # GGUF stores the divisors of the frequencies, without the numbers that they come from: a reader takes those of Llama 3.
        "llama3-8192": (LlamaForCausalLM(LlamaConfig(**{**SMALL, "max_position_embeddings": 16384}, head_dim=32, rope_parameters=llama3_8192, tie_word_embeddings=False,
                                                     attention_bias=True, mlp_bias=True)), torch.float32, "5GB"),
        "llama-bf16-shards": (LlamaForCausalLM(LlamaConfig(**SMALL, rope_parameters=rope("linear", factor=4.0),
                                                           tie_word_embeddings=True)), torch.bfloat16, "300KB"),
        "qwen2": (Qwen2ForCausalLM(Qwen2Config(**SMALL, rope_parameters=rope(theta=1e6), tie_word_embeddings=True)),
                  torch.float32, "5GB"),
        "qwen2-window": (Qwen2ForCausalLM(Qwen2Config(**SMALL, rope_parameters=rope(), use_sliding_window=True, sliding_window=50,
                                                      max_window_layers=2)), torch.float16, "5GB"),
        "qwen3": (Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=24, rope_parameters=rope(theta=1e6), tie_word_embeddings=False)),
                  torch.float32, "5GB"),
        # No attn_logit_softcapping: transformers 5 reads it for Gemma 3 but does not apply it.
        "gemma3": (Gemma3ForCausalLM(Gemma3TextConfig(
            **SMALL, head_dim=24, query_pre_attn_scalar=40, sliding_window=64, final_logit_softcapping=10.0,
            layer_types=["sliding_attention", "full_attention"] * 2,
            rope_parameters={"full_attention": rope("linear", 1e6, factor=8.0), "sliding_attention": rope(theta=1e4)})),
                   torch.float32, "5GB"),
    }  # fmt: skip


def randomise(model, generator):
    """Weights large enough that attention is sharp and norms and biases matter (transformers starts them at 0 and 1)."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(0.3 * noise + (0.0 if "Gemma" in type(model).__name__ else 1.0))
            else:
                parameter.copy_(noise * (0.1 if name.endswith("bias") or "embed" in name else 1.5 / parameter.shape[-1] ** 0.5))


def gguf_tensors(path):
    return {tensor.name: torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
            for tensor in GGUFReader(path).tensors}  # fmt: skip


def unpermute(weight, heads):
    """GGUF's llama keeps the rows of q and k in interleaved-rope order."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def permute(weight, heads):
    """The inverse of unpermute, for biases too."""
    rows = weight.shape[0]
    return weight.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


LINEARS = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
           "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}  # fmt: skip


NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm"}  # fmt: skip
ENDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
GGUF_ARCHITECTURES = {"llama3-8192": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}


def write_gguf(path, architecture, model):
    """The model as llama.cpp's converter names and orders it, in F32."""
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if config.rope_parameters["rope_type"] == "llama3":
        plain = config.rope_parameters["rope_theta"] ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        writer.add_tensor("rope_freqs.weight", (plain / model.model.rotary_emb.inv_freq).float().numpy())
    for name, value in model.state_dict().items():
        stem, kind = name.rsplit(".", 1)
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if stem.startswith("model.layers."):
            layer, part = stem.removeprefix("model.layers.").split(".", 1)
            short = {**LINEARS, **NORMS}[part]
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(short)
            value = permute(value, heads) if heads and architecture == "llama" else value
            stem = f"blk.{layer}.{short}"
        else:
            stem = ENDS[stem]
        writer.add_tensor(f"{stem}.{kind}", value.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load_state(model, state):
    with torch.no_grad():
        missing = model.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys and set(missing.missing_keys) <= {"lm_head.weight"}, missing
    model.tie_weights()
    return model.eval()


def smollm2(path):
    config = LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                         num_key_value_heads=3, max_position_embeddings=8192, rms_norm_eps=1e-5, rope_parameters=rope(theta=100000.0),
                         tie_word_embeddings=True)  # fmt: skip
    tensors = gguf_tensors(path)
    state = {"model.embed_tokens.weight": tensors["token_embd.weight"], "model.norm.weight": tensors["output_norm.weight"]}
    for layer in range(30):
        to, source = f"model.layers.{layer}.", f"blk.{layer}."
        for name, short in LINEARS.items():
            weight = tensors[f"{source}{short}.weight"]
            heads = {"attn_q": 9, "attn_k": 3}.get(short)
            state[f"{to}{name}.weight"] = unpermute(weight, heads) if heads else weight
        state[f"{to}input_layernorm.weight"] = tensors[f"{source}attn_norm.weight"]
        state[f"{to}post_attention_layernorm.weight"] = tensors[f"{source}ffn_norm.weight"]
    return load_state(LlamaForCausalLM(config), state)


def gemma3(path):
    layer_types = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(18)]
    config = Gemma3TextConfig(
        vocab_size=262144, hidden_size=640, intermediate_size=2048, num_hidden_layers=18, num_attention_heads=4, num_key_value_heads=1,
        head_dim=256, query_pre_attn_scalar=256, sliding_window=512, layer_types=layer_types, max_position_embeddings=32768,
        rms_norm_eps=1e-6, rope_parameters={"full_attention": rope(theta=1e6), "sliding_attention": rope(theta=1e4)},
        tie_word_embeddings=True)  # fmt: skip
    norms = {"input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
             "post_feedforward_layernorm": "post_ffw_norm", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}  # fmt: skip
    tensors = gguf_tensors(path)
    state = {"model.embed_tokens.weight": tensors["token_embd.weight"], "model.norm.weight": tensors["output_norm.weight"] - 1}
    for layer in range(18):
        to, source = f"model.layers.{layer}.", f"blk.{layer}."
        for name, short in LINEARS.items():
            state[f"{to}{name}.weight"] = tensors[f"{source}{short}.weight"]
        for name, short in norms.items():  # GGUF holds 1 + w
            state[f"{to}{name}.weight"] = tensors[f"{source}{short}.weight"] - 1
    return load_state(Gemma3ForCausalLM(config), state)


REAL = {  # name: (build, file, tokens)
    "smollm2-135m": (smollm2, CACHE / "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf", 512),
    "gemma3-270m": (gemma3, CACHE / "models/gemma3-270m/gemma-3-270m-q4_k_m.gguf", 720),
}


def run_cpp(folder, jobs):
    (folder / "jobs.json").write_text(json.dumps(jobs))
    start = time.time()
    done = subprocess.run(
        [str(BUILD / "nn_test"), "--gtest_filter=Interop.*"],
        env=dict(os.environ, LIGHTEN_INTEROP_DIR=str(folder)), capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode or "SKIPPED" in done.stdout or "[  PASSED  ] 1 test" not in done.stdout:
        print(done.stdout[-4000:], done.stderr[-4000:])
        sys.exit("nn_test failed")
    print(f"{len(jobs)} models scored in C++ in {time.time() - start:.1f} s")


def compare(name, model, folder):
    """Largest relative error over positions, or None if shapes differ."""
    path = folder / f"{name}.logits.safetensors"
    with safe_open(path, "pt") as file, torch.inference_mode():
        ids, ours = file.get_tensor("ids"), file.get_tensor("logits")
        reference = model(ids[None]).logits[0]
        assert ours.shape == reference.shape and ours.dtype == torch.float32, (ours.shape, reference.shape)
        worst = max(float((a - b).norm() / b.norm()) for a, b in zip(ours, reference))
        spread = float(reference.std(dim=-1).mean())
    path.unlink()
    ok = worst <= LIMIT and spread > 0.1
    print(f"{'ok    ' if ok else 'FAILED'}  {name:20} {len(ids)} positions, worst relative error {worst:.2e} (limit {LIMIT:.0e})", flush=True)
    return ok


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    prose = CACHE / "text/prose/test.txt"
    parser.add_argument("--text", type=pathlib.Path, default=prose if prose.exists() else ROOT / "LICENSE")
    parser.add_argument("--only", default="", help="only models whose name contains this")
    arguments = parser.parse_args()
    logging.disable_progress_bar()
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(2)
    models, jobs = {}, []
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        for name, (model, dtype, shard) in random_models().items():
            if arguments.only not in name:
                continue
            randomise(model, generator)
            model.to(dtype).save_pretrained(folder / name, max_shard_size=shard)
            # Read back in float32: a model that was cast down and up again keeps rounded rotary frequencies.
            models[name] = type(model).from_pretrained(folder / name, dtype=torch.float32, attn_implementation="eager").eval()
            ids = torch.randint(0, SMALL["vocab_size"], (300,), generator=generator)
            jobs.append({"name": name, "model": str(folder / name), "ids": ids.tolist()})
            if name in GGUF_ARCHITECTURES:
                file = folder / f"{name}.gguf"
                write_gguf(file, GGUF_ARCHITECTURES[name], models[name])
                models[file.name] = models[name]
                jobs.append({"name": file.name, "model": str(file), "ids": ids.tolist()})
        text = arguments.text.read_bytes()[:12000].decode(errors="ignore")  # more than enough for 720 tokens
        (folder / "text.txt").write_text(text)
        for name, (_, path, tokens) in REAL.items():
            if arguments.only not in name:
                continue
            if path.exists():
                jobs.append({"name": name, "model": str(path), "text": str(folder / "text.txt"), "tokens": tokens})
            else:
                print(f"skip    {name}: not fetched (lighten data get {name})")
        run_cpp(folder, jobs)
        for job in jobs:
            model = models.get(job["name"])
            if model is None:
                build, path, _ = REAL[job["name"]]
                model = build(path)
            good = compare(job["name"], model, folder) and good
            del model
    print(f"logits of {len(jobs)} models compared with transformers")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
