"""Lighten's readers and writers against the libraries that define the formats: safetensors, gguf, transformers.

Runs `formats_test --gtest_filter=Interop.*` on files that Python wrote, and reads what it wrote. All comparisons are bit for bit.
LIGHTEN_BUILD names the build folder (default: build). Models in the cache are compared too, where they have been fetched.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
import transformers
from gguf import GGMLQuantizationType as Q
from gguf import GGUFReader, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize

BUILD = pathlib.Path(os.environ.get("LIGHTEN_BUILD", "build"))
CACHE = pathlib.Path(
    os.environ.get("LIGHTEN_DATA") or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "lighten"
)
rng = np.random.default_rng(1)
failures = []


def check(name, ok, detail=""):
    print(f"{'ok    ' if ok else 'FAILED'}  {name} {detail}")
    if not ok:
        failures.append(name)


def same_bits(a, b):
    a, b = np.ascontiguousarray(a, np.float32), np.ascontiguousarray(b, np.float32)
    return a.shape == b.shape and np.array_equal(a.view(np.uint32), b.view(np.uint32))


def run_cpp(folder, test):
    environment = dict(os.environ, LIGHTEN_INTEROP_DIR=str(folder))
    result = subprocess.run(
        [str(BUILD / "formats_test"), f"--gtest_filter=Interop.{test}"], env=environment, capture_output=True, text=True
    )
    check(f"C++ test Interop.{test} passes", result.returncode == 0 and "SKIPPED" not in result.stdout)
    if result.returncode != 0:
        print(result.stdout[-3000:], result.stderr[-2000:])


# ---------------------------------------------------------------- safetensors

TORCH_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U64": torch.uint64,
    "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def safetensors_from_python(folder):
    (folder / "safetensors").mkdir()
    tensors = {}
    for name, dtype in TORCH_TYPES.items():
        size = 256 if dtype.itemsize == 1 else 512  # every byte, every binary16
        if dtype == torch.bool:
            tensors[name] = torch.arange(8) % 3 == 0
        elif dtype.itemsize == 1:
            tensors[name] = torch.arange(256, dtype=torch.int32).to(torch.uint8).view(dtype)
        elif dtype.itemsize == 2:
            tensors[name] = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(dtype).reshape(256, 256)
        elif dtype.is_floating_point:
            tensors[name] = torch.from_numpy(rng.standard_normal((4, size))).to(dtype)
        else:
            tensors[name] = torch.from_numpy(rng.integers(0, 2**40, (4, size))).to(dtype)
    tensors["scalar"] = torch.tensor(2.5)
    tensors["empty"] = torch.zeros(0, 4)
    path = folder / "safetensors" / "all.safetensors"
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt", "word": "größe"})
    run_cpp(folder, "SafetensorsFromPython")
    dump = safetensors.numpy.load_file(str(path) + ".dump")
    for name, tensor in tensors.items():
        expected = tensor.to(torch.float32).numpy()
        finite = ~np.isnan(expected)
        ok = dump[name].shape == expected.shape and np.array_equal(np.isnan(dump[name]), ~finite)
        check(f"safetensors read {name}", ok and same_bits(dump[name][finite], expected[finite]))
    metadata = json.loads(pathlib.Path(str(path) + ".json").read_text())
    check("safetensors metadata", metadata == {"format": "pt", "word": "größe"})


def safetensors_for_python(folder):
    run_cpp(folder, "SafetensorsForPython")
    path = folder / "from_cpp.safetensors"
    loaded = safetensors.torch.load_file(path)
    pattern = torch.arange(64, dtype=torch.int32).remainder(2).to(torch.uint8)
    for name, dtype in TORCH_TYPES.items():
        ok = loaded[name].dtype == dtype and torch.equal(loaded[name].view(torch.uint8), pattern)
        check(f"safetensors written {name}", ok)
    check("safetensors scalar and empty", loaded["scalar"].shape == () and loaded["empty"].shape == (0, 3))
    with safetensors.safe_open(path, "pt") as file:
        check("safetensors written metadata", file.metadata() == {"format": "pt", "note": 'zwölf "quoted"\n'})
    header = int.from_bytes(path.read_bytes()[:8], "little")
    check("safetensors data is aligned to 64 bytes", (8 + header) % 64 == 0)


# ---------------------------------------------------------------- GGUF

WRITABLE = [Q.F32, Q.F16, Q.BF16, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0]
K_SCALES = {Q.Q2_K: (80, 82), Q.Q3_K: (108,), Q.Q4_K: (0, 2), Q.Q5_K: (0, 2), Q.Q6_K: (208,), Q.IQ4_NL: (0,)}


def awkward_values(rows, columns):
    """Normal numbers of many sizes, and blocks that are constant, zero, tiny, one-sided, or full of ties."""
    values = rng.standard_normal((rows, columns)) * np.exp(rng.uniform(-12, 3, (rows, 1)))
    values[0] = 0
    values[1] = 0.3
    values[2] = -0.3
    values[3] = np.abs(values[3])
    values[4] = -np.abs(values[4])
    values[5] = np.round(rng.uniform(-8, 8, columns)) / 2
    values[6, ::32] = 100
    values[7] *= 1e-7 / np.abs(values[7]).max()
    values[8, ::2] = -0.0
    return values.astype(np.float32)


def random_blocks(qtype, rows, blocks):
    """Blocks of random bits with sane scales: every code, every 6-bit scale occurs."""
    data = rng.integers(0, 256, (rows, blocks, GGML_QUANT_SIZES[qtype][1]), dtype=np.uint8)
    for at in K_SCALES[qtype]:
        data[:, :, at : at + 2] = rng.uniform(-0.01, 0.01, (rows, blocks, 1)).astype(np.float16).view(np.uint8)
    return data.reshape(rows, -1)


def gguf_from_python(folder):
    (folder / "gguf").mkdir()
    path = folder / "gguf" / "all.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_uint32("test.u32", 7)
    writer.add_float32("test.f32", 1e-5)
    writer.add_float64("test.f64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_string("test.text", "größe")
    writer.add_int64("test.i64", -(2**40))
    writer.add_array("test.texts", ["a", "b c", ""])
    writer.add_array("test.numbers", [1, 2, -3])
    values, data = awkward_values(32, 512), {}
    for qtype in WRITABLE:
        data[qtype.name] = (quantize(values, qtype), qtype)
    for qtype in K_SCALES:
        data[qtype.name] = (random_blocks(qtype, 8, 3), qtype)
    for name, (array, qtype) in data.items():
        writer.add_tensor(name, array, raw_dtype=qtype)
    writer.add_tensor("three_dimensions", values[:, :96].reshape(4, 8, 96))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    run_cpp(folder, "GgufFromPython")
    dump = safetensors.numpy.load_file(str(path) + ".safetensors")
    for name, (array, qtype) in data.items():
        check(f"GGUF dequantize {name}", same_bits(dump[name], dequantize(array, qtype)), str(dump[name].shape))
    check("GGUF three dimensions", same_bits(dump["three_dimensions"], values[:, :96].reshape(4, 8, 96)))
    metadata = json.loads(pathlib.Path(str(path) + ".json").read_text())
    expected = {"test.u32": 7, "test.f32": 1e-5, "test.f64": 0.1, "test.bool": True, "test.text": "größe", "test.i64": -(2**40)}
    expected |= {"test.texts": ["a", "b c", ""], "test.numbers": [1, 2, -3], "general.architecture": "llama"}
    check("GGUF metadata", metadata == expected, str(metadata) if metadata != expected else "")


def gguf_for_python(folder):
    values = awkward_values(32, 512)
    safetensors.numpy.save_file({"values": values}, folder / "values.safetensors")
    run_cpp(folder, "GgufForPython")
    for alignment in (32, 64):
        reader = GGUFReader(folder / f"from_cpp_{alignment}.gguf")
        tensors = {t.name: t for t in reader.tensors}
        for qtype in WRITABLE:
            tensor = tensors[qtype.name]
            stored = np.ascontiguousarray(tensor.data).view(np.uint8)
            expected = np.ascontiguousarray(quantize(values, qtype)).view(np.uint8)
            ok = tensor.tensor_type == qtype and list(tensor.shape) == [512, 32] and np.array_equal(stored, expected)
            check(f"GGUF written {qtype.name}, alignment {alignment}", ok and tensor.data_offset % alignment == 0)
        found = {name: field.contents() for name, field in reader.fields.items() if name.startswith("test.")}
        expected = {"test.bool": True, "test.u32": 4000000000, "test.i32": -5, "test.u64": 1 << 40, "test.f32": np.float32(0.1)}
        expected |= {"test.texts": ["a", "", "zwölf"], "test.i32s": [1, -2, 3], "test.f32s": [0.5, -1.5]}
        check(f"GGUF written metadata, alignment {alignment}", found == expected, "" if found == expected else str(found))


# ---------------------------------------------------------------- configurations

SMALL = dict(vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=7, num_attention_heads=4, num_key_value_heads=2)
SMALL |= dict(bos_token_id=1, eos_token_id=2, pad_token_id=None)
LLAMA3 = dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
LLAMA3 |= dict(original_max_position_embeddings=8192)
OLD = {k: v for k, v in SMALL.items() if k != "pad_token_id"}


def configurations():
    from transformers import Gemma3TextConfig, LlamaConfig, Qwen2Config, Qwen3Config

    return {
        "llama": LlamaConfig(**SMALL, tie_word_embeddings=True),
        "llama_biased": LlamaConfig(**SMALL, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-5, head_dim=32),
        "llama3": LlamaConfig(**(SMALL | dict(eos_token_id=[2, 3])), rope_parameters=dict(LLAMA3), max_position_embeddings=131072),
        "llama_linear": LlamaConfig(**SMALL, rope_parameters=dict(rope_type="linear", factor=2.0, rope_theta=10000.0)),
        "qwen2": Qwen2Config(**SMALL, rope_parameters=dict(rope_type="default", rope_theta=1e6)),
        "qwen2_sliding": Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=16, max_window_layers=3),
        "qwen3": Qwen3Config(**SMALL, head_dim=32, tie_word_embeddings=True),
        "qwen3_biased": Qwen3Config(**SMALL, head_dim=32, attention_bias=True),
        "gemma3": Gemma3TextConfig(**SMALL, head_dim=32, query_pre_attn_scalar=32, sliding_window=16),
        "gemma3_capped": Gemma3TextConfig(
            **SMALL, head_dim=32, sliding_window=16, final_logit_softcapping=30.0, attn_logit_softcapping=50.0,
            layer_types=["full_attention", "sliding_attention"] * 3 + ["full_attention"],
            rope_parameters={
                "full_attention": dict(rope_type="linear", factor=8.0, rope_theta=1e6),
                "sliding_attention": dict(rope_type="default", rope_theta=12345.0),
            },
        ),
    }  # fmt: skip


OLD_STYLE = {  # as files from before transformers 5 say it
    "old_llama3": dict(
        OLD, model_type="llama", rope_theta=5e5, tie_word_embeddings=False, max_position_embeddings=131072,
        rope_scaling={k: v for k, v in LLAMA3.items() if k != "rope_theta"},
    ),
    "old_linear": dict(OLD, model_type="llama", rope_scaling=dict(type="linear", factor=4.0)),
    "old_qwen2": dict(OLD, model_type="qwen2", rope_theta=1e6, use_sliding_window=False, sliding_window=32768, max_window_layers=2),
    "old_gemma3": dict(OLD, model_type="gemma3_text", rope_theta=1e6, rope_local_base_freq=10000.0, sliding_window=512, head_dim=32,
                       sliding_window_pattern=3, rope_scaling=dict(rope_type="linear", factor=8.0)),
    "short_llama": {k: v for k, v in dict(OLD, model_type="llama").items() if k != "num_key_value_heads"},
}  # fmt: skip

IGNORED = {"architectures", "transformers_version", "_name_or_path", "initializer_range", "pretraining_tp", "use_cache", "dtype",
           "max_window_layers", "pad_token_id", "attention_dropout", "_sliding_window_pattern", "sliding_window_pattern",
           "rope_theta", "rope_local_base_freq"}  # fmt: skip


def effective(config):
    values = {key: value for key, value in config.to_dict().items() if key not in IGNORED}
    if isinstance(values.get("rope_parameters"), dict):
        values["rope_parameters"].pop("type", None)  # older spelling of rope_type, kept beside it
    values["head_dim"] = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if "sliding_attention" not in (getattr(config, "layer_types", None) or []):
        values.pop("sliding_window", None)
        values.pop("use_sliding_window", None)
    return values


def configs(folder):
    (folder / "configs").mkdir()
    originals = configurations()
    for name, config in originals.items():
        (folder / "configs" / f"{name}.json").write_text(config.to_json_string(use_diff=True))
    for name, values in OLD_STYLE.items():
        (folder / "configs" / f"{name}.json").write_text(json.dumps(values))
        originals[name] = transformers.AutoConfig.for_model(**json.loads(json.dumps(values)))
    nested = {"model_type": "gemma3", "text_config": originals["gemma3"].to_dict(), "architectures": ["Gemma3ForConditionalGeneration"]}
    (folder / "configs" / "gemma3_nested.json").write_text(json.dumps(nested))
    originals["gemma3_nested"] = originals["gemma3"]
    run_cpp(folder, "Configurations")
    for name, original in originals.items():
        result = json.loads((folder / "configs" / f"{name}.json.out").read_text())
        again = transformers.AutoConfig.for_model(**result["config"])
        a, b = effective(original), effective(again)
        differing = {key: (a.get(key), b.get(key)) for key in a.keys() | b.keys() if a.get(key) != b.get(key)}
        check(f"config {name} means the same", type(original) is type(again) and not differing, str(differing or ""))
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(again)
        shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
        if again.tie_word_embeddings:
            shapes.pop("lm_head.weight", None)
        check(f"config {name} expects transformers' tensors", shapes == result["tensors"], f"{len(shapes)} tensors")


# ---------------------------------------------------------------- whole models


def checksums(values):
    bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32).astype(np.uint64)
    plain = int(bits.sum(dtype=np.uint64))
    bits *= np.arange(1, len(bits) + 1, dtype=np.uint64)
    return [plain, int(bits.sum(dtype=np.uint64))]


def hugging_face_model(folder, name, config, dtype, shard):
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.1)
    model.save_pretrained(folder / name, max_shard_size=shard)
    expected = {}
    for key, value in model.state_dict().items():
        plus_one = config.model_type == "gemma3_text" and key.endswith("norm.weight")
        expected[key] = (1.0 + value.float() if plus_one else value.float()).numpy()
    if config.tie_word_embeddings:
        expected.pop("lm_head.weight", None)
    return expected


GGUF_BLOCK = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
              "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
              "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
              "post_attention_norm": "post_attention_layernorm"}  # fmt: skip
GGUF_TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}


def gguf_sums(path):
    """Checksums of every tensor in Hugging Face's names and order, by the gguf package's dequantization."""
    reader = GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    heads = {"q": reader.fields[f"{architecture}.attention.head_count"].contents()}
    heads["k"] = reader.fields[f"{architecture}.attention.head_count_kv"].contents()
    sums = {}
    for tensor in reader.tensors:
        values = dequantize(np.asarray(tensor.data), tensor.tensor_type)
        name = GGUF_TOP.get(tensor.name)
        if name is None:
            _, layer, part, kind = tensor.name.split(".")
            norm = "pre_feedforward_layernorm" if architecture == "gemma3" else "post_attention_layernorm"
            name = f"model.layers.{layer}.{norm if part == 'ffn_norm' else GGUF_BLOCK[part]}.{kind}"
            if architecture == "llama" and part in ("attn_q", "attn_k"):
                count = heads[part[-1]]
                values = values.reshape(count, values.shape[0] // count // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)
        sums[name] = {"shape": list(values.shape), "sums": checksums(values)}
    return sums


def whole_models(folder):
    all_configs = configurations()
    expected, lines = [], []
    for name, dtype, shard in (("llama", torch.float32, "5GB"), ("llama_biased", torch.float16, "50KB"), ("qwen2", torch.bfloat16, "100KB"),
                               ("qwen3", torch.float32, "5GB"), ("gemma3", torch.bfloat16, "90KB")):  # fmt: skip
        values = hugging_face_model(folder, name, all_configs[name], dtype, shard)
        expected.append((name, {key: {"shape": list(v.shape), "sums": checksums(v)} for key, v in values.items()}))
        lines.append(str(folder / name))
    for name in ("smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf", "gemma3-270m/gemma-3-270m-q4_k_m.gguf"):
        path = CACHE / "models" / name
        if not path.exists():
            print(f"left out: {name} has not been fetched")
            continue
        expected.append((name, gguf_sums(path)))
        lines.append(str(path))
    (folder / "models.txt").write_text("\n".join(lines))
    run_cpp(folder, "WeightsOfModels")
    for number, (name, sums) in enumerate(expected):
        result = json.loads((folder / f"model_{number}.json").read_text())
        wrong = [key for key in sums.keys() | result["tensors"].keys() if sums.get(key) != result["tensors"].get(key)]
        check(f"all {len(sums)} tensors of {name}", not wrong, f"{result['container']}, {result['low_bit']} low-bit {wrong[:4] or ''}")


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        safetensors_from_python(folder)
        safetensors_for_python(folder)
        gguf_from_python(folder)
        gguf_for_python(folder)
        configs(folder)
        whole_models(folder)
    print(f"{len(failures)} failed" if failures else "all equal")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
