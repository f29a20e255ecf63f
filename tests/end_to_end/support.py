"""What the end-to-end tests share: calling the built programs, and a tiny model made by hand."""
import atexit
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = (ROOT / os.environ.get("LIGHTEN_BUILD", "build")).resolve()
LIGHTEN = BUILD / "lighten"
# For mpirun as root, on fewer cores than processes, on one machine.
MPI = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_rmaps_base_oversubscribe="1", OMPI_MCA_btl="self,vader,tcp")
failures = []


def need(path, why):
    """Skips the whole script where something it needs is not there."""
    if not pathlib.Path(path).exists():
        print(f"skipped: {why} ({path} is missing)")
        sys.exit(77)


def lighten(*arguments, program=LIGHTEN, timeout=300, environment=None, preexec=None, stdin="", stdout=subprocess.PIPE):
    return subprocess.run([str(program), *map(str, arguments)], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=timeout, errors="replace", input=stdin,
                          env=dict(os.environ, **(environment or {})), preexec_fn=preexec, cwd=ROOT)


def check(condition, what, done=None):
    print(("ok    " if condition else "FAIL  ") + what, flush=True)
    if not condition:
        failures.append(what)
        if done is not None:
            print(f"      exit {done.returncode}\n      out: {(done.stdout or '')[-1500:]}\n      err: {done.stderr[-1500:]}")


def check_error(done, exit_code, words, what):
    """One clear sentence on standard error with all the words, the exit code, and nothing like a crash."""
    text = done.stderr
    good = done.returncode == exit_code and all(word in text for word in words) and "Traceback" not in text and "terminate called" not in text
    check(good, f"{what}: exit {exit_code}, names {', '.join(map(repr, words))}", done)


def check_goes_on(what, output, *command, result):
    """A training interrupted at its first checkpoint writes nothing; the same command goes on to the bytes of one that never stopped."""
    whole, stopped = pathlib.Path(f"{output}-whole"), pathlib.Path(f"{output}-stopped")
    done = lighten(*command, "--threads", 1, "-o", whole)
    check(done.returncode == 0, f"{what}: trained without a stop", done)
    work = pathlib.Path(f"{stopped}.work")
    process = subprocess.Popen([str(LIGHTEN), *map(str, command), "--threads", "1", "-o", str(stopped)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not list(work.glob("**/checkpoint.safetensors")) and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    message = process.communicate()[1]
    check(process.returncode == 130 and "goes on from there" in message and not stopped.exists(), f"{what}: interrupted, it says how to go on and writes no output ({process.returncode})")
    done = lighten(*command, "--threads", 1, "-o", stopped)
    check(done.returncode == 0 and "going on at epoch" in done.stderr, f"{what}: the same command goes on", done)
    check((stopped / result).read_bytes() == (whole / result).read_bytes() and not work.exists(), f"{what}: to the same bytes as without the stop; no work is left over")


def finish():
    print(f"{len(failures)} failures" if failures else "all good")
    sys.exit(1 if failures else 0)


def scratch():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="lighten-e2e-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def png(path, rows):
    """A grey picture of 8 bits from rows of numbers."""

    def part(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    raw = b"".join(b"\0" + bytes(row) for row in rows)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + part(b"IHDR", struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 0, 0, 0, 0)) +
                     part(b"IDAT", zlib.compress(raw)) + part(b"IEND", b""))


def byte_characters():
    """GPT-2's printable stand-ins for the 256 bytes."""
    printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for byte in range(256):
        if byte in printable:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + extra)
            extra += 1
    return table


def tokenizer_json():
    vocabulary = {character: byte for byte, character in byte_characters().items()}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": 256, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": False,
                  "byte_fallback": False, "vocab": vocabulary, "merges": []},
    }


CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 257, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "hidden_act": "silu", "tie_word_embeddings": True, "eos_token_id": 256, "bos_token_id": None, "attention_bias": False, "mlp_bias": False,
    "torch_dtype": "float32",
}


def tensors(config=CONFIG, seed=0):
    rng = np.random.default_rng(seed)
    d, f = config["hidden_size"], config["intermediate_size"]
    q, kv = config["num_attention_heads"] * config["head_dim"], config["num_key_value_heads"] * config["head_dim"]
    made = {"model.embed_tokens.weight": rng.normal(0, 0.5, (config["vocab_size"], d)), "model.norm.weight": np.ones(d)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for name, shape in {"self_attn.q_proj": (q, d), "self_attn.k_proj": (kv, d), "self_attn.v_proj": (kv, d), "self_attn.o_proj": (d, q), "mlp.gate_proj": (f, d),
                            "mlp.up_proj": (f, d), "mlp.down_proj": (d, f)}.items():
            made[prefix + name + ".weight"] = rng.normal(0, shape[1] ** -0.5, shape)
        made[prefix + "input_layernorm.weight"] = np.ones(d)
        made[prefix + "post_attention_layernorm.weight"] = np.ones(d)
    return {name: value.astype(np.float32) for name, value in made.items()}


def safetensors(named, edit=None):
    """The bytes of a safetensors file; `edit` may change the header (a dict) before it is written."""
    header, data = {}, b""
    for name, value in named.items():
        raw = value.tobytes()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    if edit:
        edit(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def tiny_model(folder, config=CONFIG, named=None, weights=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
    (folder / "model.safetensors").write_bytes(weights if weights is not None else safetensors(named or tensors(config)))
    return folder


def text_file(path, size=60000):
    words = "the of a model light weight makes small with tokens and reads every number from its group while writing down what it costs".split()
    rng = np.random.default_rng(1)
    text = ""
    while len(text) < size:
        text += " ".join(words[i] for i in rng.integers(0, len(words), 12)).capitalize() + ".\n"
    path.write_text(text)
    return path
