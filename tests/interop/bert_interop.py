"""Lighten's BERT encoder against transformers in float32: unit embeddings equal to 1e-5, mean and CLS pooling, cut texts, padded
batches. A small random checkpoint is always compared; MiniLM where it has been fetched. The C++ side is nn_test's BertInterop."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
from transformers.utils import logging

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("LIGHTEN_BUILD", "build"))
CACHE = pathlib.Path(
    os.environ.get("LIGHTEN_DATA") or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "lighten"
)
MINILM = CACHE / "models/minilm-l6"
LIMIT = 1e-5

TEXTS = [
    "A fast, portable scanner for network services.", "x", "", "GNU C compiler for the arm64 architecture",
    "Ein Wörterbuch: naïve café 東京 [MASK] [SEP] don't stop", "unaffable " * 300,
] + [line for line in (ROOT / "LICENSE").read_text().splitlines() if line.strip()][:60]  # fmt: skip


def reference(model, tokenizer, texts, max_tokens, pooling):
    rows = []
    with torch.inference_mode():
        for text in texts:  # one by one: no padding
            inner = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)[: max_tokens - 2]
            ids = torch.tensor([[tokenizer.cls_token_id, *inner, tokenizer.sep_token_id]])
            hidden = model(input_ids=ids).last_hidden_state[0]
            rows.append(hidden[0] if pooling == "cls" else hidden.mean(0))
    return torch.nn.functional.normalize(torch.stack(rows))


def small_model(folder):
    """Random weights behind MiniLM's tokenizer, so that attention is sharp and every bias matters."""
    torch.manual_seed(1)
    model = BertModel(BertConfig(vocab_size=30522, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=80)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape)
            parameter.copy_(1 + 0.2 * noise if "LayerNorm.weight" in name else noise * 0.3)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((MINILM / "tokenizer.json").read_bytes())
    return model


def main():
    logging.disable_progress_bar()
    if not (MINILM / "tokenizer.json").exists():
        print("MiniLM is not fetched (lighten data get minilm-l6)")
        return 77
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(MINILM / "tokenizer.json"), cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]",
                                        pad_token="[PAD]", mask_token="[MASK]")  # fmt: skip
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        models = {"small": small_model(folder / "small"), "minilm": BertModel.from_pretrained(MINILM, attn_implementation="eager").eval()}
        jobs = []
        for name in models:
            path = folder / "small" if name == "small" else MINILM
            for pooling in ("mean", "cls"):
                for max_tokens in (256, 16):
                    jobs.append(dict(name=f"{name}-{pooling}-{max_tokens}", model=str(path), texts=TEXTS, pooling=pooling, max_tokens=max_tokens))
        (folder / "bert_jobs.json").write_text(json.dumps(jobs))
        done = subprocess.run([str(BUILD / "nn_test"), "--gtest_filter=BertInterop.*"], env=dict(os.environ, LIGHTEN_INTEROP_DIR=temporary),
                              capture_output=True, text=True)  # fmt: skip
        if done.returncode or "[  PASSED  ] 1 test" not in done.stdout:
            print(done.stdout[-3000:], done.stderr[-2000:])
            return 1
        for job in jobs:
            ours = load_file(folder / f"{job['name']}.embeddings.safetensors")["embeddings"]
            theirs = reference(models[job["name"].split("-")[0]], tokenizer, TEXTS, job["max_tokens"], job["pooling"])
            worst = float((ours - theirs).abs().max())
            ok = ours.shape == theirs.shape and worst <= LIMIT
            good = good and ok
            print(f"{'ok    ' if ok else 'FAILED'}  {job['name']:20} {len(TEXTS)} texts, largest difference {worst:.1e} (limit {LIMIT:.0e})")
    print("embeddings compared with transformers")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
