"""quantize --trim-vocab: on a tiny model, and SmolLM2 and its tokenizer as the `tokenizers` library reads it."""
import json
import subprocess
from collections import Counter

from safetensors import safe_open

from support import CONFIG, LIGHTEN, check, check_error, finish, lighten, need, scratch, tensors, text_file, tiny_model, tokenizer_json

need(LIGHTEN, "build lighten first")
folder = scratch()
config = {**CONFIG, "vocab_size": 320, "eos_token_id": 316}
model = tiny_model(folder / "model", config, tensors(config))
tokenizer = tokenizer_json()
pairs = [left + right for left in "theamodlig" for right in "theans"]
tokenizer["model"]["vocab"].update({pair: 256 + i for i, pair in enumerate(pairs)})
tokenizer["model"]["merges"] = [f"{pair[0]} {pair[1]}" for pair in pairs]
tokenizer["added_tokens"][0]["id"] = 316
(model / "tokenizer.json").write_text(json.dumps(tokenizer))
text = text_file(folder / "text.txt")
(folder / "corpus.txt").write_text("the lamp has no oil, then the light goes\n" * 3)


def quantize(out, *more, model=model, corpus=folder / "corpus.txt", head_bits=8):
    return lighten("quantize", model, "--method", "rtn", "--bits", 4, "--group-size", 32, "--head-bits", head_bits, "--trim-vocab", corpus, "-o", folder / out, *more)


done = quantize("dry", "--dry-run", "--json", folder / "dry.json")
plan = json.loads((folder / "dry.json").read_text())["plan"] if done.returncode == 0 else {}
check(done.returncode == 0 and "tokens  320 -> " in done.stdout and not (folder / "dry").exists(), "--dry-run tells how many tokens stay", done)
done = quantize("light", "--json", folder / "q.json")
figures = json.loads((folder / "q.json").read_text()) if done.returncode == 0 else {}
check(done.returncode == 0 and figures["tokens_before"] == 320 and 257 < figures["tokens_after"] < 300, f"fewer tokens: {figures.get('tokens_after')}", done)
check(figures.get("rows_saved") == plan.get("rows_saved") and "tokens in the vocabulary" in done.stdout, "and the plan knew what that saves")
written = json.loads((folder / "light/config.json").read_text()) if done.returncode == 0 else {}
check(written.get("vocab_size") == figures.get("tokens_after") == written.get("eos_token_id", 0) + 1, "vocab_size and eos_token_id follow")

done = lighten("inspect", folder / "light", "--json", folder / "i.json")
check("trimmed from 320 to what corpus.txt" in done.stdout and json.loads((folder / "i.json").read_text())["method"]["vocabulary"]["tokens_before"] == 320, "inspect tells it", done)
done = lighten("eval", folder / "light", "--text", text, "--window", 128, "--max-tokens", 2048, "--json", folder / "e.json")
check(done.returncode == 0 and json.loads((folder / "e.json").read_text())["bits_per_byte"] > 0, "the light model is evaluated alone", done)
check_error(lighten("eval", folder / "light", "--against", model, "--text", text, "--window", 128), 1, ["320", "bits per byte"], "KL against another vocabulary")
done = lighten("run", folder / "light", "-p", "the light", "-n", 8, "--raw", "--quiet")
check(done.returncode == 0, "and it runs", done)

done = quantize("banded", "--head-frequent", "8:40", "--calib", text, head_bits=4)
check(done.returncode == 0, "--head-frequent ranks the tokens that are left", done)
listed = [t["name"] for t in json.loads(lighten("inspect", folder / "banded", "--json", "-").stdout)["tensors"] if "embed" in t["name"]]
check(sorted(name.rsplit(".", 1)[1] for name in listed) == ["band0", "band1", "places"], f"the rows stand in two bands {listed}")
with safe_open(folder / "banded/model.safetensors", "np") as file:
    places = file.get_tensor("model.embed_tokens.weight.places")
lighten("tokenize", folder / "banded", "--text", text, "--json", folder / "ids.json")
commonest = [token for token, _ in Counter(json.loads((folder / "ids.json").read_text())["ids"]).most_common(5)]
check(max(places[token] for token in commonest) < 40, f"by their new numbers: the text's commonest tokens lead {places[commonest]}")

check(quantize("filled", "--trim-tokens", 310, "--json", folder / "f.json").returncode == 0 and json.loads((folder / "f.json").read_text())["tokens_after"] <= 310, "--trim-tokens is the most that is filled up to")
check_error(quantize("light"), 1, ["light", "--force"], "an output that exists")
check(quantize("light", "--force", "--trim-min-count", 4).returncode == 0, "--force replaces it")
for what, content in {"empty": b" \n", "binary": b"the\0lamp", "Latin-1": "é ".encode("latin-1") * 40}.items():
    (folder / f"{what}.txt").write_bytes(content)
    check_error(quantize("bad", corpus=folder / f"{what}.txt"), 1, [f"{what}.txt", "--trim-vocab"], f"a corpus that is {what}")
check_error(quantize("bad", corpus=folder / "nowhere.txt"), 1, ["nowhere.txt"], "a corpus that is missing")
check_error(quantize("bad", "--trim-tokens", "many"), 2, ["trim-tokens", "many"], "--trim-tokens that is no number")
(model / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "a": 1}}}))
check_error(quantize("bad"), 1, ["model.type", "WordPiece", "--trim-vocab"], "a tokenizer that is no BPE")
check(not list(folder.glob("bad*")), "what is refused leaves no folder")

known = {row["id"]: row for row in json.loads(subprocess.run([LIGHTEN, "data", "list", "--json", "-"], capture_output=True, text=True, check=True).stdout)}
if known["smollm2-135m"]["path"]:
    from tokenizers import Tokenizer

    (folder / "words.txt").write_text("The light lamp, a hash table's 1024 entries and \u00e9t\u00e9 \u4e2d\u6587 \U0001F600.\n\tIndented <|im_start|>text.\n")
    done = quantize("smol", model="smollm2-135m", corpus=text)
    check(done.returncode == 0, "SmolLM2 with the tokens of a small text", done)
    check(lighten("tokenize", folder / "smol", "--text", folder / "words.txt", "--json", folder / "ids.json").returncode == 0, "its tokenizer works")
    reference = Tokenizer.from_file(str(folder / "smol/tokenizer.json"))
    words = (folder / "words.txt").read_text()
    ids = reference.encode(words, add_special_tokens=False).ids
    check(json.loads((folder / "ids.json").read_text())["ids"] == ids, "and `tokenizers` reads it alike")
    check(reference.decode(ids, skip_special_tokens=False) == words and reference.token_to_id("<|im_start|>") in ids, "any text survives, markers stay whole")
finish()
