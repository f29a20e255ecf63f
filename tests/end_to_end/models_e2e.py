"""The fetched models through the command line: what inspect shows, known token ids."""
import json
import subprocess

from support import LIGHTEN, check, finish, lighten, need, scratch

need(LIGHTEN, "build lighten first")
folder = scratch()
known = {row["id"]: row for row in json.loads(subprocess.run([LIGHTEN, "data", "list", "--json", "-"], capture_output=True, text=True, check=True).stdout)}
for name in ("smollm2-135m", "gemma3-270m", "minilm-l6"):
    need(known[name]["path"], f"`lighten data get {name}` first")


def inspect(name):
    done = lighten("inspect", name, "--json", folder / f"{name}.json")
    check(done.returncode == 0, f"inspect {name}", done)
    return json.loads((folder / f"{name}.json").read_text()) if done.returncode == 0 else {}, done.stdout


contents, text = inspect("smollm2-135m")
types = [tensor["type"] for tensor in contents["tensors"]]
check(types.count("Q4_1") == 210 and types.count("Q8_0") == 1, "SmolLM2: 210 Q4_1 linears and a Q8_0 embedding")
check(contents["parameters"] == 134515008, f"SmolLM2: {contents['parameters']} parameters")
check(contents["tokenizer"]["size"] == 49152 and "ChatML" in text and "Apache-2.0" in text.replace("apache-2.0", "Apache-2.0"), "SmolLM2: vocabulary, chat template, licence")
contents, text = inspect("gemma3-270m")
check(contents["tokenizer"]["size"] == 262144 and contents["tokenizer"]["adds_bos"] and "gemma3" in text, "Gemma: vocabulary, BOS, architecture")
contents, text = inspect("minilm-l6")
check(any(t["type"] == "F32" and t["shape"] == [30522, 384] for t in contents["tensors"]) and contents["tokenizer"]["size"] == 30522, "MiniLM: an encoder is listed too")

for words, ids in {"The capital of France is": [504, 3575, 282, 4649, 314], "a  2": [81, 256, 34]}.items():
    (folder / "words.txt").write_text(words)
    done = lighten("tokenize", "smollm2-135m", "--text", folder / "words.txt", "--json", folder / "ids.json")
    check(done.returncode == 0 and json.loads((folder / "ids.json").read_text())["ids"] == ids, f"SmolLM2's ids of {words!r}", done)
finish()
