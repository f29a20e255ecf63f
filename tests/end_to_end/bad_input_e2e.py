"""Hostile and broken input through the command line: one clear sentence, the right exit code, nothing lost."""
import json
import resource
import signal
import struct

import numpy as np

from support import CONFIG, LIGHTEN, check, check_error, finish, lighten, need, safetensors, scratch, tensors, text_file, tiny_model, tokenizer_json

need(LIGHTEN, "build lighten first")
folder = scratch()
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
doubled = good.replace(b'"model.norm.weight"', b'"model.norm.weight"', 1)
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

configs = {
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
              "ids that are words": lambda t: t["model"].update(vocab={"a": "b"})}
for what, edit in tokenizers.items():
    model, content = tiny_model(folder / ("t-" + what.replace(" ", "-"))), tokenizer_json()
    edit(content)
    (model / "tokenizer.json").write_text(json.dumps(content))
    check_error(lighten("tokenize", model, "--text", text), 1, ["tokenizer.json"], "tokenizer with " + what)

ggufs = {"empty": b"", "magic only": b"GGUF", "version 77": b"GGUF" + struct.pack("<IQQ", 77, 0, 0), "too many tensors": b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0),
         "no GGUF at all": b"PK\x03\x04" * 100}
for what, content in ggufs.items():
    path = folder / (what.replace(" ", "-") + ".gguf")
    path.write_bytes(content)
    check_error(lighten("inspect", path), 1, [path.name], "GGUF: " + what)

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
check_error(lighten("eval", model, "--text", folder / "calib-empty"), 1, ["window"], "evaluation on an empty text")

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
config = json.loads((light / "config.json").read_text())
config["lighten"]["format_version"] = 999
(light / "config.json").write_text(json.dumps(config))
check_error(lighten("run", light, "-p", "x", "-n", 4), 1, ["config.json", "999"], "light model of another format version")
finish()
