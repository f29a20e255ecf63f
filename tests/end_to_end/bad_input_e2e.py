"""Hostile and broken input through the command line: one clear sentence, the right exit code, nothing lost."""
import json
import resource
import signal
import struct

import numpy as np

from support import CONFIG, LIGHTEN, byte_characters, check, check_error, finish, lighten, need, safetensors, scratch, tensors, text_file, tiny_model, tokenizer_json

need(LIGHTEN, "build lighten first")
folder = scratch()
GGUF_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
              "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
              "post_attention_layernorm": "ffn_norm"}
GGUF_METADATA = [("general.architecture", "llama"), ("llama.block_count", 3), ("llama.context_length", 1024), ("llama.embedding_length", 64), ("llama.feed_forward_length", 192),
                 ("llama.attention.head_count", 4), ("llama.attention.head_count_kv", 2), ("llama.attention.layer_norm_rms_epsilon", 1e-5), ("tokenizer.ggml.model", "gpt2"),
                 ("tokenizer.ggml.pre", "gpt-2"), ("tokenizer.ggml.tokens", [*byte_characters().values(), "<|endoftext|>"]), ("tokenizer.ggml.token_type", [1] * 256 + [3]),
                 ("tokenizer.ggml.merges", []), ("tokenizer.ggml.eos_token_id", 256)]
named = tensors()
good = safetensors(named)
text = text_file(folder / "text.txt")
DOWN = "model.layers.1.mlp.down_proj.weight"


def quantize(model, *more, method="rtn", out="out", **keywords):
    return lighten("quantize", model, "--method", method, "--bits", 4, "--group-size", 32, "-o", folder / out, *more, **keywords)


def with_header(edit):
    return safetensors(named, edit)


def overlap(header):
    names = list(header)
    header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]


def replace(name, **fields):
    return lambda header: header[name].update(fields)


def gguf_tensors(named):
    """name -> (sizes, type, bytes): matrices in Q8_0, the rest in F32."""
    out = {}
    for name, value in named.items():
        stem = name.removesuffix(".weight")
        if stem.startswith("model.layers."):
            layer, part = stem.removeprefix("model.layers.").split(".", 1)
            stem = f"blk.{layer}.{GGUF_NAMES[part]}"
        else:
            stem = GGUF_NAMES[stem]
        if value.ndim == 2:
            groups = value.reshape(-1, 32)
            scales = (np.abs(groups).max(1) / 127).astype(np.float16)
            codes = np.rint(groups / scales[:, None].astype(np.float32)).astype(np.int8)
            out[stem + ".weight"] = (value.shape, 8, b"".join(s.tobytes() + c.tobytes() for s, c in zip(scales, codes)))
        else:
            out[stem + ".weight"] = (value.shape, 0, value.tobytes())
    return out


def gguf(tensors, metadata=None, offsets=lambda all: all):
    """The bytes of a GGUF file, version 3. `offsets` may spoil where the tensors lie."""
    def text(value):
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def typed(value):
        if isinstance(value, list):
            return 9, struct.pack("<IQ", typed(value[0])[0] if value else 8, len(value)) + b"".join(typed(item)[1] for item in value)
        if isinstance(value, str):
            return 8, text(value)
        return (6, struct.pack("<f", value)) if isinstance(value, float) else (4, struct.pack("<I", value))

    tensors, metadata = list(tensors.items() if isinstance(tensors, dict) else tensors), metadata or GGUF_METADATA
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata:
        kind, raw = typed(value)
        out += text(key) + struct.pack("<I", kind) + raw
    places, data = [], b""
    for _, (_, _, raw) in tensors:
        data += b"\0" * (-len(data) % 32)
        places.append(len(data))
        data += raw
    for (name, (shape, kind, _)), place in zip(tensors, offsets(places)):
        out += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, place)
    return out + b"\0" * (-len(out) % 32) + data


broken_weights = {
    "truncated": (good[: len(good) // 2], ["model.safetensors"]),
    "shorter than its header length": (good[:4], ["model.safetensors"]),
    "empty": (b"", ["model.safetensors"]),
    "oversized header": (struct.pack("<Q", 1 << 62) + good[8:], ["model.safetensors", "header"]),
    "header that is no JSON": (struct.pack("<Q", 16) + b"{not json at all" + good[8:], ["model.safetensors"]),
    "overlapping offsets": (with_header(overlap), ["model.safetensors"]),
    "offsets past the end": (with_header(lambda h: h[list(h)[-1]].update(data_offsets=[h[list(h)[-1]]["data_offsets"][0], 1 << 60])), ["model.safetensors"]),
    "negative shape": (with_header(replace(DOWN, shape=[-64, -192])), [DOWN]),
    "shape whose size overflows": (with_header(replace(DOWN, shape=[1 << 32, 1 << 32])), [DOWN]),
    "unknown dtype": (with_header(replace(DOWN, dtype="F12")), [DOWN, "F12"]),
    "wrong dtype": (with_header(replace(DOWN, dtype="I64")), [DOWN]),
    "wrong shape": (safetensors({**named, DOWN: named[DOWN].T.copy()}), [DOWN, "192"]),
    "missing tensor": (safetensors({k: v for k, v in named.items() if k != DOWN}), [DOWN]),
    "NaN weight": (safetensors({**named, DOWN: np.where(np.arange(named[DOWN].size).reshape(named[DOWN].shape) == 7, np.nan, named[DOWN]).astype(np.float32)}), [DOWN]),
    "infinite weight": (safetensors({**named, DOWN: np.full_like(named[DOWN], np.inf)}), [DOWN]),
}
header = json.dumps({k: {"dtype": "F32", "shape": list(v.shape), "data_offsets": [0, v.nbytes]} for k, v in list(named.items())[:1]})
twice = (header[:-1] + "," + header[1:]).encode()
broken_weights["duplicate key"] = (struct.pack("<Q", len(twice)) + twice + list(named.values())[0].tobytes(), ["model.safetensors"])
for what, (weights, words) in broken_weights.items():
    model = tiny_model(folder / ("w-" + what.replace(" ", "-")), weights=weights)
    check_error(quantize(model), 1, words, what)
check(not (folder / "out").exists(), "no output folder appears")

shards = tiny_model(folder / "traversal")
(shards / "model.safetensors").rename(folder / "secret.safetensors")
(shards / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {name: "../secret.safetensors" for name in named}}))
check_error(quantize(shards), 1, ["index.json", "../secret.safetensors"], "shard index that leaves the folder")

for shard in ("model-1.safetensors", "model-2.safetensors"):
    (shards / shard).write_bytes(good)
(shards / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {name: f"model-{1 + i % 2}.safetensors" for i, name in enumerate(named)}}))
check_error(quantize(shards), 1, ["model-2.safetensors", "model-1.safetensors", "tensor"], "a tensor in two shards")
(shards / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors", "a": "model-2.safetensors"}}')
check_error(quantize(shards), 1, ["index.json", "twice"], "shard index with a repeated key")

configs = {
    "a repeated key": (json.dumps(CONFIG)[:-1] + ', "hidden_size": 64}', ["config.json", "hidden_size", "twice"]),
    "no JSON": ("{", ["config.json"]),
    "no hidden_size": (json.dumps({k: v for k, v in CONFIG.items() if k != "hidden_size"}), ["config.json", "hidden_size"]),
    "zero heads": (json.dumps({**CONFIG, "num_attention_heads": 0}), ["config.json"]),
    "a huge number of layers": (json.dumps({**CONFIG, "num_hidden_layers": 1 << 40}), ["config.json"]),
    "text where a number belongs": (json.dumps({**CONFIG, "hidden_size": "wide"}), ["config.json", "hidden_size"]),
    "unknown architecture": (json.dumps({**CONFIG, "model_type": "hyena", "architectures": ["Hyena"]}), ["config.json", "hyena"]),
}
for what, (config, words) in configs.items():
    model = tiny_model(folder / ("c-" + what.replace(" ", "-")))
    (model / "config.json").write_text(config)
    check_error(quantize(model), 1, words, "config.json with " + what)

tokenizers = {"no model": lambda t: t.pop("model"), "no vocab": lambda t: t["model"].pop("vocab"), "no merges": lambda t: t["model"].pop("merges"),
              "ids that are words": lambda t: t["model"].update(vocab={"a": "b"}), "a gap before an added token": lambda t: t["added_tokens"][0].update(id=300)}
for what, edit in tokenizers.items():
    model, content = tiny_model(folder / ("t-" + what.replace(" ", "-"))), tokenizer_json()
    edit(content)
    (model / "tokenizer.json").write_text(json.dumps(content))
    check_error(lighten("tokenize", model, "--text", text), 1, ["tokenizer.json"], "tokenizer with " + what)

model, content = tiny_model(folder / "t-ids-outside"), tokenizer_json()
content["added_tokens"].append({**content["added_tokens"][0], "id": 257, "content": "ordinary", "special": False})
(model / "tokenizer.json").write_text(json.dumps(content))
check_error(lighten("run", model, "-p", "x", "-n", 2), 1, ["tokenizer.json", "ordinary", "257"], "tokenizer with an id that the model has not")

ggufs = {"empty": (b"", []), "magic only": (b"GGUF", []), "version 77": (b"GGUF" + struct.pack("<IQQ", 77, 0, 0), []),
         "too many tensors": (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), []), "no GGUF at all": (b"PK\x03\x04" * 100, [])}
stored = gguf_tensors(named)
whole = gguf(stored)
norm = stored["blk.1.attn_norm.weight"]
bad_scale = bytearray(stored["blk.1.ffn_down.weight"][2])
bad_scale[34:36] = struct.pack("<H", 0x7E00)
ggufs |= {
    "NaN scale": (gguf({**stored, "blk.1.ffn_down.weight": (*stored["blk.1.ffn_down.weight"][:2], bytes(bad_scale))}), ["blk.1.ffn_down.weight"]),
    "wrong shape": (gguf({**stored, "blk.1.attn_norm.weight": ((32,), norm[1], norm[2][:128])}), ["blk.1.attn_norm.weight", "32", "64"]),
    "missing tensor": (gguf({name: value for name, value in stored.items() if name != "blk.1.ffn_down.weight"}), ["blk.1.ffn_down.weight"]),
    "overlapping tensors": (gguf(stored, offsets=lambda all: [all[0], all[0], *all[2:]]), ["overlap"]),
    "repeated key": (gguf(stored, metadata=[*GGUF_METADATA, GGUF_METADATA[1]]), ["llama.block_count"]),
    "repeated tensor": (gguf([*stored.items(), list(stored.items())[-1]]), [list(stored)[-1]]),
    "cut in the middle": (whole[: len(whole) // 2], []),
    "cut in the header": (whole[:500], []),
}
for what, (content, words) in ggufs.items():
    path = folder / (what.replace(" ", "-") + ".gguf")
    path.write_bytes(content)
    check_error(quantize(path), 1, [path.name, *words], "GGUF: " + what)
(folder / "good.gguf").write_bytes(whole)
done = quantize(folder / "good.gguf", out="from-gguf")
check(done.returncode == 0, "a good GGUF is quantized", done)

model = tiny_model(folder / "model")
for what, content in {"empty": b"", "binary": bytes(range(256)) * 400, "too short": b"Just one line.\n"}.items():
    calibration = folder / ("calib-" + what.replace(" ", "-"))
    calibration.write_bytes(content)
    check_error(quantize(model, "--calib", calibration, method="gptq"), 1, [calibration.name], "calibration that is " + what)
check_error(quantize(model, "--calib", folder / "nowhere.txt", method="gptq"), 1, ["nowhere.txt"], "calibration that is missing")
done = quantize(model, method="awq")
check(done.returncode in (1, 2) and "--calib" in done.stderr, "a method that needs calibration and gets none", done)
done = quantize(model, "--calib", folder / "calib-too-short", "--dry-run", method="gptq", out="short")
check_error(done, 1, ["calib-too-short"], "--dry-run on a text that is too short")
check_error(quantize(model, "--calib", folder / "calib-too-short", method="gptq", out="short"), 1, ["calib-too-short"], "the same without --dry-run")
check(not list(folder.glob("short*")), "a calibration text that is refused leaves no folder")
check_error(lighten("eval", model, "--text", folder / "calib-empty"), 1, ["calib-empty is empty"], "evaluation on an empty text")

done = lighten("quantize", model, "--method", "rtn", "--bits", 4, "--group-size", 128, "-o", folder / "out")
check(done.returncode in (1, 2) and "proj" in done.stderr and "32" in done.stderr and "64" in done.stderr, "group size that does not divide: names tensor and sizes that would do", done)

done = quantize(model, out="kept")
check(done.returncode == 0, "a good model is quantized", done)
before = sorted((path.name, path.read_bytes()) for path in (folder / "kept").iterdir())
check_error(quantize(model, out="kept"), 1, ["kept", "--force"], "an output folder that exists")
check_error(quantize(model, "--dry-run", out="kept"), 1, ["kept", "--force"], "--dry-run with an output folder that exists")
check_error(quantize(model, "--report", folder / "no/page.html", out="unreported"), 1, ["page.html"], "a report that cannot be written is said before the work")
for what, out in {"the model itself": "model", "a folder around the model": ".", "a folder inside the model": "model/light"}.items():
    check_error(quantize(model, "--force", out=out), 2, ["model", "-o"], "--force with the output in " + what)
(folder / "precious").mkdir()
(folder / "precious/thesis.txt").write_text("years of work")
check_error(quantize(model, "--force", out="precious"), 1, ["precious", "no light model"], "--force on a folder that is no light model")
check((folder / "precious/thesis.txt").exists() and (folder / "model/config.json").exists(), "and all of it is kept")
bad = folder / "w-NaN-weight"
check_error(quantize(bad, "--force", out="kept"), 1, [DOWN], "--force with a broken model")
check(sorted((path.name, path.read_bytes()) for path in (folder / "kept").iterdir()) == before, "the old output is as it was")
done = quantize(model, "--force", out="kept")
check(done.returncode == 0 and (folder / "kept/config.json").exists(), "--force replaces it", done)
check_error(quantize(folder / "kept", out="again"), 1, ["kept"], "a light model cannot be quantized again")


def small_disk():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))


done = quantize(model, out="full", preexec=small_disk)
check(done.returncode == 1 and "full" in done.stderr and not (folder / "full").exists(), "a file that cannot grow (full disk): error, no output", done)

light = folder / "kept"
weights = (light / "model.safetensors").read_bytes()
for what, content in {"truncated": weights[: len(weights) // 2], "empty": b"", "header damaged": weights[:8] + b"\0" * 64 + weights[72:]}.items():
    (light / "model.safetensors").write_bytes(content)
    check_error(lighten("run", light, "-p", "x", "-n", 4), 1, ["model.safetensors"], "light model: " + what)
(light / "model.safetensors").write_bytes(weights)
header_size = struct.unpack("<Q", weights[:8])[0]
header = json.loads(weights[8 : 8 + header_size])
name, entry = max(((name, entry) for name, entry in header.items() if entry.get("dtype") == "F32"), key=lambda item: item[1]["data_offsets"])
end = 8 + header_size + entry["data_offsets"][1]
(light / "model.safetensors").write_bytes(weights[: end - 4] + struct.pack("<f", float("nan")) + weights[end:])
check_error(lighten("run", light, "-p", "x", "-n", 4), 1, ["model.safetensors", name], "light model: NaN in a norm, run")
check_error(lighten("eval", light, "--text", text), 1, ["model.safetensors", name], "light model: NaN in a norm, eval")
begin = 8 + header_size + header["model.embed_tokens.weight"]["data_offsets"][0]
(light / "model.safetensors").write_bytes(weights[:begin] + struct.pack("<H", 0x7E00) + weights[begin + 2 :])
check_error(lighten("run", light, "-p", "x", "-n", 4), 1, ["model.safetensors", "model.embed_tokens.weight"], "light model: NaN in the float embedding")
(light / "model.safetensors").write_bytes(weights)

config = json.loads((light / "config.json").read_text())
descriptions = config["lighten"]["tensors"]
damaged = {
    "another format version": ({"format_version": 999}, ["999"]),
    "no description of a tensor": ({"tensors": {n: d for n, d in descriptions.items() if n != DOWN}}, [DOWN]),
    "a description too many": ({"tensors": {**descriptions, "ghost": descriptions[DOWN]}}, ["ghost"]),
    "5 bits": ({"tensors": {**descriptions, DOWN: {**descriptions[DOWN], "bits": 5}}}, [DOWN, "5 bits"]),
    "a group that does not divide": ({"tensors": {**descriptions, DOWN: {**descriptions[DOWN], "group_size": 50}}}, [DOWN]),
    "norms of another kind": ({"norms": "offset"}, ["norms"]),
}
kept = (light / "config.json").read_text()
for what, (change, words) in damaged.items():
    (light / "config.json").write_text(json.dumps({**config, "lighten": {**config["lighten"], **change}}))
    check_error(lighten("run", light, "-p", "x", "-n", 4), 1, ["config.json", *words], f"light model: {what}, run")
    check_error(lighten("eval", light, "--text", text), 1, ["config.json", *words], f"light model: {what}, eval")
(light / "config.json").write_text(json.dumps({**config, "lighten": None}))
check_error(lighten("run", light, "-p", "x", "-n", 4), 1, ["config.json", "lighten"], "light model: null where its description belongs")
(light / "config.json").write_text(kept)

done = lighten("tokenize", light, "--text", "/dev/stdin", "--json", folder / "ids.json", stdin="hi there")
check(done.returncode == 0 and json.loads((folder / "ids.json").read_text())["ids"] == list(b"hi there"), "a text from a pipe is tokenized", done)
done = lighten("eval", light, "--text", "/dev/stdin", "--window", 64, stdin=text.read_text()[:500])
check(done.returncode == 0, "a text from a pipe is scored", done)
check_error(quantize(model, "--calib", "/dev/stdin", method="gptq", out="piped", stdin=text.read_text()), 1, ["/dev/stdin", "regular file"], "calibration, which is read twice, from a pipe")
check_error(lighten("run", light, "-p", "x" * 1500, "--raw", "-n", 4), 2, ["1500 tokens", "1024"], "a prompt longer than the context")
done = lighten("run", light, "--raw", "-n", 2, "--quiet", "--json", folder / "chat.json", stdin="a\r\n" + "x" * 1500 + "\nb\n")
turns = json.loads((folder / "chat.json").read_text())["turns"] if (folder / "chat.json").exists() else []
check(done.returncode == 0 and [turn["message"][:2] for turn in turns] == ["a", "xx", "b"] and "error" in turns[1], "a chat goes on after a line that is too long", done)
for program in (LIGHTEN, LIGHTEN.with_name("lighten-run")):
    arguments = ["run"] if program == LIGHTEN else []
    with open("/dev/full", "w") as full:  # the chat's own answer, and what is printed at the end
        done = lighten(*arguments, light, "-p", "x", "-n", 4, program=program, stdout=full)
        check_error(done, 1, ["standard output"], f"{program.name}: a full standard output")
        check_error(lighten("--version", program=program, stdout=full), 1, ["standard output", "full"], f"{program.name} --version: a full standard output")
finish()
