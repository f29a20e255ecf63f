"""Systems on labels and graphs as a user calls them, on small data made here: results, files, and errors that name the line."""
import json
import subprocess
import time

import numpy as np
from support import LIGHTEN, check, check_error, check_goes_on, finish, lighten, need, scratch

need(LIGHTEN, "build lighten first")
folder = scratch()
rng = np.random.default_rng(5)


def write(name, text):
    (folder / name).write_text(text)
    return folder / name


def save(name, array):
    np.save(folder / name, array)
    return folder / name


# ---------------------------------------------------------------- label certify

scores = rng.random((900, 6)).astype(np.float32)
truth = rng.random((900, 6)) < scores
calibration, test = save("cal.npy", scores[:500]), save("test.npy", scores[500:])
rows, columns = np.nonzero(truth[:500])
labels = write("cal.csv", "id,label\n" + "".join(f"{r},{c}\n" for r, c in zip(rows, columns)))
done = lighten("label", "certify", "calibrate", "--scores", calibration, "--labels", labels, "-o", folder / "cal.json")
check(done.returncode == 0, "certify calibrate", done)
done = lighten("label", "certify", "predict", "--scores", test, "--calibration", folder / "cal.json", "--eps", 0.1, "-o", folder / "sets.jsonl",
               "--labels", save("truth.npy", truth[500:].astype(np.uint8)), "--max-sets", 64, "--json", folder / "certify.json")  # fmt: skip
check(done.returncode == 0, "certify predict", done)
lines = [json.loads(line) for line in (folder / "sets.jsonl").read_text().splitlines()]
held = np.mean([sorted(np.flatnonzero(t)) in [s["labels"] for s in line["sets"]] for t, line in zip(truth[500:], lines)])
coverage = json.loads((folder / "certify.json").read_text())["coverage"]
check(len(lines) == 400 and abs(held - coverage) < 1e-9, f"the sets hold the truth as often as is said ({held:.3f})")
check(0.85 <= coverage <= 0.95, f"coverage {coverage:.3f} is near 0.9")
names = write("names.txt", "".join(f"label {c}\n" for c in range(6)))
named = write("named.csv", "id,label\n" + "".join(f"{r},label {c}\n" for r, c in zip(rows, columns)))
done = lighten("label", "certify", "calibrate", "--scores", save("logits.npy", np.log(scores[:500] / (1 - scores[:500]))), "--logits", "--labels", named, "--label-names", names,
               "-o", folder / "named.json")  # fmt: skip
check(done.returncode == 0, "certify calibrate with names and logits", done)
later = ["label", "certify", "predict", "--calibration", folder / "named.json", "--max-sets", 64]
test_logits = save("test-logits.npy", np.log(scores[500:] / (1 - scores[500:])))
done = lighten(*later, "--scores", test_logits, "--logits", "-o", folder / "named.jsonl")
check(done.returncode == 0, "certify predict knows the names", done)
named_lines = [json.loads(line) for line in (folder / "named.jsonl").read_text().splitlines()]
same = [[f"label {c}" for c in line["point"]] == other["point"] and abs(line["count"] - other["count"]) <= 1 if line["complete"] and other["complete"] else True
        for line, other in zip(lines, named_lines)]  # fmt: skip
check(len(named_lines) == 400 and np.mean(same) > 0.99, "and says by name what it says by number")
check_error(lighten(*later, "--scores", test, "-o", folder / "x.jsonl"), 2, ["named.json", "--logits"], "probabilities for a calibration on logits")
check_error(lighten("label", "certify", "predict", "--calibration", folder / "cal.json", "--scores", test_logits, "--logits", "-o", folder / "x.jsonl"), 2,
            ["cal.json", "probabilities", "--logits"], "logits for a calibration on probabilities")  # fmt: skip
check_error(lighten(*later, "--scores", test_logits, "--logits", "--label-names", write("others.txt", names.read_text().replace("label 3", "label 9")), "-o", folder / "x.jsonl"), 1,
            ["others.txt", "line 4", "label 9", "label 3"], "other names than those of the calibration")  # fmt: skip
check_error(lighten(*later, "--scores", test_logits, "--logits", "-o", folder / "named.jsonl"), 1, ["named.jsonl", "--force"], "predictions that exist are not overwritten")
check_error(lighten("label", "certify", "calibrate", "--scores", calibration, "--labels", labels, "-o", folder / "cal.json"), 1, ["cal.json", "--force"], "nor a calibration")
check(lighten(*later, "--scores", test_logits, "--logits", "-o", folder / "named.jsonl", "--force").returncode == 0, "--force replaces it")
bad = scores[:500].copy()
bad[7, 2] = np.nan
check_error(lighten("label", "certify", "calibrate", "--scores", save("nan.npy", bad), "--labels", labels, "-o", folder / "x.json"), 1, ["nan.npy", "7"], "a NaN score")
bad[7, 2] = 3
check_error(lighten("label", "certify", "calibrate", "--scores", save("big.npy", bad), "--labels", labels, "-o", folder / "x.json"), 2,
            ["row 7, column 2", "--logits"], "a score above 1")  # fmt: skip
check_error(lighten("label", "certify", "calibrate", "--scores", calibration, "--labels", write("bad.csv", "id,label\n0,1\n0,9\n"), "-o", folder / "x.json"), 1,
            ["bad.csv", "line 3", "label 9"], "an unknown label")  # fmt: skip
lighten("label", "certify", "calibrate", "--scores", save("few.npy", scores[:10]), "--labels", write("few.csv", "id,label\n0,1\n"), "-o", folder / "few.json")
check_error(lighten("label", "certify", "predict", "--scores", test, "--calibration", folder / "few.json", "--eps", 0.05, "-o", folder / "x.jsonl"), 2,
            ["10 calibration samples", "19"], "calibration smaller than 1 / eps")  # fmt: skip

# ---------------------------------------------------------------- train graph, distill

nodes = 240
group = np.arange(nodes) % 3
edges = [(i, j) for i in range(nodes) for j in range(i + 1, nodes) if rng.random() < (0.1 if group[i] == group[j] else 0.01)]
features = rng.normal(size=(nodes, 8)).astype(np.float32)
features[np.arange(nodes), group] += 1.5
names = np.array(["red", "green", "blue, or so"])
split = np.array(["train", "train", "train", "validation", "test"])[np.arange(nodes) % 5]
noisy = np.where((split == "train") & (rng.random(nodes) < 0.2), (group + 1) % 3, group)
edge_file = write("e.tsv", "".join(f"{i}\t{j}\n" for i, j in edges))
feature_file = save("f.npy", features)
label_file = write("l.csv", "id,label,split\n" + "".join(f'{i},"{names[g]}",{s}\n' for i, (g, s) in enumerate(zip(noisy, split))))
graph = ["--edges", edge_file, "--features", feature_file, "--labels", label_file]
small = ["--hidden", 16, "--heads", 2, "--embedding", 8, "--epochs", 30, "--learning-rate", 0.01]
done = lighten("train", "graph", "--method", "erase", *graph, *small, "-o", folder / "erase", "--json", folder / "erase.json")
check(done.returncode == 0, "train graph --method erase", done)
accuracy = json.loads((folder / "erase.json").read_text())["accuracy_test"]
check(accuracy > 0.8, f"erase is right on {accuracy:.2f} of the test nodes")
suspects = [line.split(",")[0] for line in (folder / "erase/suspects.csv").read_text().splitlines()[1:]]
wrong = set(np.flatnonzero(noisy != group))
found = [int(s) for s in suspects]
check(len(found) > 5 and np.mean([s in wrong for s in found]) > 0.6, f"{len(found)} suspects, most of them really wrong")
check(np.load(folder / "erase/embeddings.npy").shape == (nodes, 8), "embeddings.npy")
again = lighten("train", "graph", "--method", "erase", *graph, *small, "-o", folder / "erase2", "--json", folder / "again.json")
check((folder / "erase/predictions.csv").read_bytes() == (folder / "erase2/predictions.csv").read_bytes(), "the same seed gives the same bytes", again)
check_error(lighten("train", "graph", *graph, *small, "-o", folder / "erase"), 1, ["erase"], "an existing folder")
check_error(lighten("train", "graph", "--edges", write("far.tsv", "0\t1\n5\t999\n"), "--features", feature_file, "--labels", label_file, "-o", folder / "x"), 1,
            ["far.tsv", "line 2", "999"], "an edge to a missing node")  # fmt: skip
check_error(lighten("train", "graph", "--edges", edge_file, "--features", feature_file, "--labels", write("one.csv", "id,label\n0,a\n1,a\n"), "-o", folder / "x"), 1,
            ["one.csv", "two classes"], "one class only")  # fmt: skip
check_error(lighten("train", "graph", "--edges", edge_file, "--features", feature_file, "--labels", write("twice.csv", "id,label\n0,a\n0,b\n"), "-o", folder / "x"), 1,
            ["twice.csv", "line 3"], "a node twice")  # fmt: skip
for what, edges, words in (
    ("letters for nodes", "a\tb\n", ["line 1", '"a"']), ("a third column", "0\t1\t2\n", ["line 1", "3 columns"]), ("a negative node", "0\t-1\n", ["line 1", "-1"]),
    ("an empty edge file", "", ["edges.tsv", "empty"]),
):  # fmt: skip
    check_error(lighten("train", "graph", "--edges", write("edges.tsv", edges), "--features", feature_file, "--labels", label_file, "-o", folder / "x"), 1,
                ["edges.tsv", *words], what)  # fmt: skip
for what, array, words in (
    ("a NaN feature", np.where(np.arange(nodes * 8).reshape(nodes, 8) == 21, np.nan, features).astype(np.float32), ["row 2, column 5"]),
    ("features without rows", features[:0], ["holds no rows"]), ("features of one dimension", features[0], ["[8]"]),
    ("features stored by column", np.asfortranarray(features), ["ascontiguousarray"]), ("complex features", features.astype(np.complex64), ["<c8"]),
):  # fmt: skip
    check_error(lighten("train", "graph", "--edges", edge_file, "--features", save("bad.npy", array), "--labels", label_file, "-o", folder / "x"), 1, ["bad.npy", *words], what)
check_error(lighten("train", "graph", "--edges", edge_file, "--features", write("text.npy", "1 2 3"), "--labels", label_file, "-o", folder / "x"), 1,
            ["text.npy", "numpy.save"], "a text in place of a .npy")  # fmt: skip
for what, text, words in (
    ("no labels", "", ["empty", "line"]), ("labels without rows", "id,label\n", ["no rows"]), ("a wrong column", "node,label\n0,a\n1,b\n", ["'id'", "node"]),
    ("a node that is not there", "id,label\n0,a\n999,b\n", ["line 3", "999"]), ("an empty label", "id,label\n0,a\n1,\n", ["line 3", "empty"]),
    ("an unknown split", "id,label,split\n0,a,train\n1,b,dev\n", ["line 3", "dev", "validation"]), ("a short row", "id,label\n0,a\n1\n", ["line 3"]),
    ("no training label", "id,label,split\n0,a,test\n1,b,test\n", ["train"]),
):  # fmt: skip
    check_error(lighten("train", "graph", "--edges", edge_file, "--features", feature_file, "--labels", write("bad.csv", text), "-o", folder / "x"), 1, ["bad.csv", *words], what)
rare = write("rare.csv", label_file.read_text().replace('\n4,"green"', '\n4,"gren"').replace('\n8,"blue, or so"', '\n8,"violet"'))
done = lighten("train", "graph", "--method", "label-propagation", "--edges", edge_file, "--features", feature_file, "--labels", rare, "-o", folder / "rare")
check(done.returncode == 0 and all(word in done.stderr for word in ("2 of 5 classes", f"'gren' ({rare}: line 6)", "did you mean 'green'?", f"'violet' ({rare}: line 10)")),
      "classes with one label are named with their rows", done)  # fmt: skip
for what, edges in (("a disconnected graph", "0\t3\n1\t4\n"), ("self loops and repeated edges", "0\t0\n0\t3\n3\t0\n1\t4\n")):
    done = lighten("train", "graph", "--method", "gcn", "--edges", write("odd.tsv", edges), "--features", feature_file, "--labels", label_file, "--hidden", 8, "--epochs", 3,
                   "-o", folder / "odd", "--force")  # fmt: skip
    check(done.returncode == 0 and ("self" in done.stderr or what == "a disconnected graph") and "nan" not in done.stdout, f"{what}: trained, and said", done)
done = lighten("distill", "--method", "vqgraph", *graph, "--codes", 16, "--width", 16, "--hidden", 16, "--teacher-epochs", 30, "--epochs", 20, "-o", folder / "mlp",
               "--json", folder / "vq.json")  # fmt: skip
check(done.returncode == 0, "distill --method vqgraph", done)
done = lighten("distill", "--method", "vqgraph", "--apply", folder / "mlp", "--features", feature_file, "-o", folder / "answers")
check(done.returncode == 0, "the perceptron answers without the graph", done)
check((folder / "answers/predictions.csv").read_bytes() == (folder / "mlp/predictions.csv").read_bytes(), "and says the same")
check_error(lighten("distill", "--method", "vqgraph", "--apply", folder / "mlp", "--features", feature_file, "--edges", edge_file, "-o", folder / "x"), 2,
            ["--edges", "--apply"], "flags of training with --apply")  # fmt: skip
check_error(lighten("distill", "--method", "vqgraf", "-o", folder / "x"), 2, ["vqgraf", "vqgraph"], "an unknown method")

long = ["--hidden", 16, "--heads", 2, "--embedding", 8, "--epochs", 400, "--patience", 0]
check_goes_on("erase", folder / "long", "train", "graph", "--method", "erase", *graph, *long, result="embeddings.npy")
check_goes_on("coteaching-gcn", folder / "long-gcn", "train", "graph", "--method", "coteaching-gcn", *graph, result="predictions.csv")
check_goes_on("vqgraph", folder / "long-vq", "distill", "--method", "vqgraph", *graph, "--codes", 16, "--width", 16, "--hidden", 16, "--teacher-epochs", 400, "--epochs", 20,
              "--patience", 400, result="model.safetensors")  # fmt: skip
check_error(lighten("train", "graph", "--method", "gcn", *graph, "--alpha", 0.3, "-o", folder / "x"), 2, ["--alpha", "gcn"], "a flag that means nothing to a baseline")
done = lighten("train", "graph", "--method", "gcn", *graph, "--hidden", 5, "--epochs", 3, "-o", folder / "gcn")
check(done.returncode == 0 and json.loads((folder / "gcn/training.json").read_text())["options"] | {"hidden": 5, "epochs": 3} == json.loads((folder / "gcn/training.json").read_text())["options"],
      "flags that a baseline knows reach it", done)  # fmt: skip
endless = ["--hidden", 16, "--heads", 2, "--embedding", 8, "--epochs", 100000, "--patience", 0]
# What was begun with other options or other data is not gone on with.
begun = subprocess.Popen([str(LIGHTEN), *map(str, ["train", "graph", *graph, *endless, "-o", folder / "begun"])], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
while not (folder / "begun.work/checkpoint.safetensors").exists() and begun.poll() is None:
    time.sleep(0.01)
begun.kill()
begun.wait()
check_error(lighten("train", "graph", *graph, *endless, "--alpha", 0.3, "-o", folder / "begun"), 2, ["begun.work", "alpha", "0.3"], "work begun with another option")
other = write("other.csv", label_file.read_text().rsplit("\n", 2)[0] + "\n")
check_error(lighten("train", "graph", "--edges", edge_file, "--features", feature_file, "--labels", other, *endless, "-o", folder / "begun"), 2,
            ["begun.work", "contents of --labels"], "work begun with other labels")  # fmt: skip

# ---------------------------------------------------------------- train bags

count = 400
positive = rng.random(count) < 0.3
points = rng.normal(size=(count, 6)).astype(np.float32)
points[:, 0] += 3 * positive
points[:, 1] += 3 * ~positive
bag = np.arange(count) // 10
bags = write("bags.csv", "bag,count\n" + "".join(f"b{b},{positive[bag == b].sum()}\n" for b in range(40)))
members = write("members.csv", "id,bag\n" + "".join(f"{i},b{b}\n" for i, b in enumerate(bag)))
point_file = save("points.npy", points)
done = lighten("train", "bags", "--features", point_file, "--bags", bags, "--members", members, "--epochs", 40, "--batch", 100, "-o", folder / "bags")
check(done.returncode == 0, "train bags --method llp-bp", done)
predicted = np.array([line.split(",")[2] == "1" for line in (folder / "bags/predictions.csv").read_text().splitlines()[1:]])
check(np.mean(predicted == positive) > 0.85, f"right on {np.mean(predicted == positive):.2f} of the instances (0.7 by always saying no)")
check_goes_on("llp-bp", folder / "long-bags", "train", "bags", "--features", point_file, "--bags", bags, "--members", members, "--epochs", 300, "--patience", 0, "--batch", 100,
              result="round2.safetensors")  # fmt: skip
many = write("many.csv", bags.read_text().replace("\nb3,", "\nb3,9"))
check_error(lighten("train", "bags", "--features", point_file, "--bags", many, "--members", members, "-o", folder / "x"), 1, ["many.csv", "line 5", "b3"],
            "a count above its bag")  # fmt: skip
check_error(lighten("train", "bags", "--features", point_file, "--bags", write("more.csv", bags.read_text() + "empty,0\n"), "--members", members, "-o", folder / "x"), 1,
            ["more.csv", "'empty' has no member"], "an empty bag")  # fmt: skip

for what, change, words in (
    ("a negative count", lambda b, m: (b.replace("\nb0,", "\nb0,-"), m), ["bad-bags.csv", "line 2", "b0"]), ("a bag twice", lambda b, m: (b + "b0,1\n", m), ["bad-bags.csv", "line 42", "b0"]),
    ("a count that is no whole number", lambda b, m: (b.replace("\nb0,", "\nb0,0.5"), m), ["bad-bags.csv", "line 2", "whole number"]),
    ("a member of an unknown bag", lambda b, m: (b, m + "0,qq\n"), ["bad-members.csv", "line 402", "qq"]), ("an id in two bags", lambda b, m: (b, m + "0,b1\n"), ["bad-members.csv", "line 402", "id 0"]),
    ("an id that is not there", lambda b, m: (b, m + "400,b1\n"), ["bad-members.csv", "line 402", "400"]),
):  # fmt: skip
    bad_bags, bad_members = change(bags.read_text(), members.read_text())
    check_error(lighten("train", "bags", "--features", point_file, "--bags", write("bad-bags.csv", bad_bags), "--members", write("bad-members.csv", bad_members), "-o", folder / "x"), 1,
                words, what)  # fmt: skip
one_side = write("one-side.csv", "bag,count\n" + "".join(f"b{b},0\n" for b in range(40)))
check_error(lighten("train", "bags", "--features", point_file, "--bags", one_side, "--members", members, "-o", folder / "x"), 2, ["one class"], "bags of one class only")

check_error(lighten("embed", write("one.txt", "a text\n"), "-o", write("there.npy", "kept")), 1, ["there.npy", "--force"], "vectors that exist are not overwritten")
check((folder / "there.npy").read_text() == "kept", "and are as they were")

# ---------------------------------------------------------------- train match (needs MiniLM)

known = json.loads(lighten("data", "list", "--json", "-").stdout)
if next(row["present"] for row in known if row["id"] == "minilm-l6"):
    topics = ["cats and kittens", "compilers and linkers", "bread and cakes", "stars and planets"]
    verbs = ["a book about", "how to love", "the history of", "pictures of", "a club for", "songs about", "a shop for", "news about"]
    texts = write("x.txt", "".join(f"{v} {t}\n" for v in verbs for t in topics))
    label_texts = write("y.txt", "pets\nprogramming\nbaking\nastronomy\n")
    pairs = write("xy.csv", "text,label\n" + "".join(f"{i},{i % 4}\n" for i in range(len(verbs) * 4)))
    new = write("new.txt", "a telescope for the moon\nmy old dog and a kitten\n")
    match = ["--texts", texts, "--label-texts", label_texts, "--pairs", pairs, "--epochs", 5, "--batch", 8, "--pool", 0]
    done = lighten("train", "match", "--method", "dexml", *match, "--predict", new, "--top", 2, "-o", folder / "match")
    check(done.returncode == 0, "train match --method dexml", done)
    answers = [line.split(",") for line in (folder / "match/predictions.csv").read_text().splitlines()[1:]]
    check([row[2] for row in answers if row[1] == "1"] == ["3", "0"], "the moon is astronomy, the dog a pet")
    check(np.load(folder / "match/labels.npy").shape == (4, 384), "labels.npy")
    done = lighten("train", "match", "--apply", folder / "match", "--predict", new, "--top", 2, "-o", folder / "applied")
    check(done.returncode == 0 and (folder / "applied/predictions.csv").read_bytes() == (folder / "match/predictions.csv").read_bytes(), "--apply says the same later", done)
    check_goes_on("dexml", folder / "long-match", "train", "match", *match[:6], "--epochs", 300, "--patience", 0, "--batch", 8, "--pool", 3, "--hard-negatives", 1, "--shortlist", 2, "--refresh", 1,
                  result="labels.npy")  # fmt: skip
    tuned = ["--texts", texts, "--label-texts", label_texts, "--pairs", pairs, "--tune-layers", 1, "--learning-rate", 3e-4, "--epochs", 3, "--batch", 8, "--pool", 0, "--predict", new, "--top", 2]
    done = lighten("train", "match", *tuned, "-o", folder / "tuned")
    check(done.returncode == 0, "train match --tune-layers 1", done)
    answers = [line.split(",") for line in (folder / "tuned/predictions.csv").read_text().splitlines()[1:]]
    check([row[2] for row in answers if row[1] == "1"] == ["3", "0"], "the tuned encoder finds them too")
    done = lighten("train", "match", "--apply", folder / "tuned", "--predict", new, "--top", 2, "-o", folder / "applied", "--force")
    check(done.returncode == 0 and (folder / "applied/predictions.csv").read_bytes() == (folder / "tuned/predictions.csv").read_bytes(), "and says the same later", done)
    lighten("embed", label_texts, "--model", folder / "tuned/encoder", "--no-cache", "-o", folder / "by-embed.npy")
    check(np.abs(np.load(folder / "by-embed.npy") - np.load(folder / "tuned/labels.npy")).max() < 1e-5, "lighten embed --model takes the tuned encoder")
    long_texts = write("long.txt", "".join(f"{v} {t}, " * 30 + "\n" for v in verbs for t in topics) * 2)  # each fills the 128 tokens
    long_pairs = write("long.csv", "text,label\n" + "".join(f"{i},{i % 4}\n" for i in range(len(verbs) * 8)))
    done = lighten("train", "match", "--texts", long_texts, "--label-texts", label_texts, "--pairs", long_pairs, "--tune-layers", -1, "--learning-rate", 1e-4, "--epochs", 1, "--pool", 0,
                   "-o", folder / "long-texts", "--json", "-")  # fmt: skip
    peak = json.loads(done.stdout)["peak_memory_bytes"] if done.returncode == 0 else 0
    check(0 < peak < 2e9, f"a step of 64 full texts through all layers needs less than 2 GB: {peak / 1e9:.2f}", done)
    check_error(lighten("train", "match", *match[2:], "-o", folder / "x"), 2, ["--texts"], "no texts")
    check_error(lighten("train", "match", "--apply", folder / "match", "--predict", new, "--epochs", 3, "-o", folder / "x"), 2, ["--epochs", "--apply"], "training flags with --apply")
    check_error(lighten("train", "match", "--apply", folder / "erase", "--predict", new, "-o", folder / "x"), 1, ["match.json", "--apply"], "--apply of something else")
    bad_pairs = write("bad.csv", pairs.read_text() + "0,4\n")
    check_error(lighten("train", "match", "--texts", texts, "--label-texts", label_texts, "--pairs", bad_pairs, "-o", folder / "x"), 1,
                ["bad.csv", "label 4 of 4"], "a label that does not exist")  # fmt: skip
    for what, pair_rows, label_rows, words in (
        ("a pair twice", pairs.read_text() + "0,0\n", None, ["bad-pairs.csv", "line 34", "label 0"]), ("a text that is not there", "text,label\n99,0\n", None, ["bad-pairs.csv", "line 2", "99"]),
        ("a label without a text", pairs.read_text(), "pets\n\nbaking\nastronomy\n", ["bad-labels.txt", "line 2"]), ("one label only", "text,label\n0,0\n", "pets\n", ["bad-labels.txt", "two or more"]),
    ):  # fmt: skip
        check_error(lighten("train", "match", "--texts", texts, "--label-texts", write("bad-labels.txt", label_rows or label_texts.read_text()), "--pairs", write("bad-pairs.csv", pair_rows),
                            "-o", folder / "x"), 1, words, what)  # fmt: skip
finish()
