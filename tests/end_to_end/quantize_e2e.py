"""The way of a weight: quantize, inspect, eval, run, bench on a tiny model; stopped and resumed equals never stopped."""
import filecmp
import html.parser
import json
import os
import signal
import subprocess
import time

from support import BUILD, LIGHTEN, check, finish, lighten, need, scratch, text_file, tiny_model

need(LIGHTEN, "build lighten first")
folder = scratch()
model = tiny_model(folder / "model")
text = text_file(folder / "text.txt")


def same(a, b):
    names = sorted(path.name for path in a.iterdir())
    return names == sorted(path.name for path in b.iterdir()) and all(filecmp.cmp(a / name, b / name, shallow=False) for name in names)


def command(out, *more, method="awq+gptq"):
    return ["quantize", model, "--method", method, "--bits", 4, "--group-size", 32, "--head-bits", 8, "--calib", text, "--calib-tokens", 4096, "-o", out, *more]


done = lighten(*command(folder / "dry", "--dry-run", "--json", folder / "dry.json"))
check(done.returncode == 0 and not (folder / "dry").exists() and not (folder / "dry.partial").exists(), "--dry-run writes nothing", done)
check("plan" in json.loads((folder / "dry.json").read_text()), "--dry-run --json holds the plan")

report, page = folder / "q.json", folder / "q.html"
done = lighten(*command(folder / "light", "--json", report, "--report", page))
check(done.returncode == 0 and (folder / "light/config.json").exists(), "quantize", done)
if done.returncode:
    finish()
figures = json.loads(report.read_text())
check(figures["size_after"] < figures["size_before"] and figures["options"]["bits"] == 4 and figures["options"]["seed"] == 0, "its figures")
check(not list(folder.glob("light*partial*")), "no partial folder is left")


class Checker(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.faults = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)
        self.faults += [f"{tag} {name}" for name, _ in attributes if name in ("src", "href")]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")


checker = Checker()
checker.feed(page.read_text())
check(not checker.faults and not checker.open and "http" not in page.read_text(), f"the report is well-formed and self-contained {checker.faults[:3]}")

done = lighten("quantize", model, "--method", "rtn", "--group-size", 32, "--head-bits", 4, "--head-frequent", "8:16", "--calib", text, "-o", folder / "banded")
check(done.returncode == 0 and "16 most frequent" in done.stdout, "frequent tokens in more bits", done)
done = lighten("inspect", folder / "banded", "--json", folder / "banded.json")
listed = json.loads((folder / "banded.json").read_text())["tensors"]
bands = {t["name"].split("weight")[1]: t["type"].split(",")[0] for t in listed if "embed" in t["name"]}
check(done.returncode == 0 and bands == {".band0": "8 bit", ".band1": "4 bit", ".places": "I32"}, f"inspect shows the bands {bands}", done)
size = (folder / "banded/model.safetensors").stat().st_size
check(0 < size - sum(t["bytes"] for t in listed) < 16384, "and all bytes but the header's")
done = lighten("run", folder / "banded", "-p", "a b", "-n", 4, "--seed", 1)
check(done.returncode == 0, "such a model runs", done)
done = lighten("quantize", model, "--method", "rtn", "--group-size", 32, "--head-bits", 4, "--head-frequent", "8:250", "--calib", text, "-o", folder / "rare")
check(done.returncode == 0 and "different ones only" in done.stderr, "more frequent tokens than the text holds: a warning", done)
for wrong in ("8", "9:4", "8:100000", ""):
    done = lighten("quantize", model, "--method", "rtn", "--head-bits", 4, "--head-frequent", wrong, "-o", folder / "wrong")
    check(done.returncode == 2 and "--head-frequent" in done.stderr and not (folder / "wrong").exists(), f"--head-frequent {wrong} is refused", done)

again = lighten(*command(folder / "again"))
check(again.returncode == 0 and same(folder / "light", folder / "again"), "the same command gives the same bytes", again)

# Killed without warning at several moments, then resumed.
arguments = [str(LIGHTEN), *map(str, command(folder / "killed", "--checkpoint-seconds", 0))]
state = folder / "killed.partial/state.safetensors"
kills = 0
for _ in range(2):
    before = state.stat().st_mtime_ns if state.exists() else 0
    child = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None and not (state.exists() and state.stat().st_mtime_ns > before):
        time.sleep(0.001)  # until a block has been saved
    if child.poll() is None:
        child.send_signal(signal.SIGKILL)
        kills += 1
    child.wait()
check(kills > 0 and state.exists(), f"killed {kills} times, work is saved")
done = lighten(*arguments[1:])
check(done.returncode == 0 and same(folder / "light", folder / "killed"), "killed and resumed = never killed", done)
check("killed.partial: 1 of 3 blocks are done" in done.stderr or "killed.partial: 2 of 3 blocks are done" in done.stderr, "the resumed run took up finished blocks", done)

child = subprocess.Popen([str(LIGHTEN), *map(str, command(folder / "stopped"))], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
while child.poll() is None and not (folder / "stopped.partial").exists():
    time.sleep(0.01)  # the work has begun
saved = (folder / "stopped.partial/state.safetensors").exists()
child.send_signal(signal.SIGINT)
_, errors = child.communicate(timeout=120)
saved_words, unsaved_words = "stopped.partial" in errors and "the same command goes on" in errors, "the same command begins anew" in errors
check(child.returncode == 0 or saved_words or (unsaved_words and not saved), "Ctrl-C: the message says whether work was saved, and how to go on")
check(child.returncode in (0, 130) and (child.returncode == 0 or not (folder / "stopped").exists()), f"Ctrl-C: exit {child.returncode}, no half folder")

done = lighten("inspect", folder / "light", "--json", folder / "i.json")
inside = json.loads((folder / "i.json").read_text())
check(done.returncode == 0 and any(t["name"].endswith("0.mlp.down_proj.weight") and t["type"].startswith("4 bit, g32") for t in inside["tensors"]), "inspect a light model", done)
done = lighten("inspect", model)
check(done.returncode == 0 and "F32" in done.stdout and "model.layers.*.mlp.down_proj.weight" in done.stdout, "inspect a float model", done)

done = lighten("eval", folder / "light", "--against", model, "--text", text, "--window", 128, "--max-tokens", 2048, "--json", folder / "e.json")
cost = json.loads((folder / "e.json").read_text()) if done.returncode == 0 else {}
keys = {"perplexity", "tokens", "bits_per_byte", "size_bytes", "bits_per_weight", "kl_mean", "kl_p99", "top1_agreement", "perplexity_ci", "kl_mean_ci", "top1_agreement_ci"}
check(done.returncode == 0 and keys <= set(cost), "eval --against and its keys", done)
check(cost.get("tokens") == 16 * 127, "16 windows of 128 score 127 tokens each")
check(cost.get("size_bytes") == sum(p.stat().st_size for p in (folder / "light").iterdir()), "size_bytes counts all files")
check(0 <= cost.get("kl_mean", -1) < 0.2 and 0.6 < cost.get("top1_agreement", 0) <= 1, "4 bits stay near the float model")
check(lighten("eval", model, "--text", text, "--window", 128, "--max-tokens", 1024, "--bootstrap", 0, "--json", folder / "n.json").returncode == 0 and json.loads((folder / "n.json").read_text())["perplexity_ci"] is None, "without resamples the interval is null")
both = lighten("eval", folder / "light", "--text", text, "--window", 128, "--max-tokens", 1024, "--exact", "--json", folder / "r.json")
other = lighten("eval", folder / "light", "--text", text, "--window", 128, "--max-tokens", 1024, "--engine", "torch", "--json", folder / "t.json")
if both.returncode == 0 and other.returncode == 0:
    a, b = (json.loads((folder / name).read_text())["perplexity"] for name in ("r.json", "t.json"))
    check(abs(a / b - 1) < 1e-4, f"both engines agree: {a:.6f} and {b:.6f}")
else:
    check(False, "both engines run", both if both.returncode else other)
check(lighten("eval", model, "--text", text, "--max-tokens", 20).returncode == 1, "a text without a whole window is refused")

first = lighten("run", folder / "light", "-p", "the model", "-n", 12, "--raw", "--quiet", "--json", folder / "run.json")
second = lighten(folder / "light", "-p", "the model", "-n", 12, "--raw", "--quiet", program=BUILD / "lighten-run")
check(first.returncode == 0 and first.stdout == second.stdout, "lighten run and lighten-run give the same text", first)

done = lighten("tokenize", model, "--text", text, "--json", folder / "ids.json")
check(done.returncode == 0 and json.loads((folder / "ids.json").read_text())["ids"] == list(text.read_bytes()), "tokenize: bytes are their own ids here", done)

done = lighten("bench", folder / "light", "--prefill", 32, "--decode", 8, "--repeat", 2, "--json", folder / "b.json")
speed = json.loads((folder / "b.json").read_text()) if done.returncode == 0 else {}
check(done.returncode == 0 and set(speed["decode_tokens_per_s"]) == {"min", "median", "max"} and speed["rss_bytes"] > 1e6 and speed["weight_bytes"] > 0, "bench and its keys", done)
finish()
