"""Texts in place of features: train bags, graph, federate and their --apply give what the vectors of `lighten embed` give."""
import csv
import json
import random

import numpy as np
from support import LIGHTEN, check, check_error, finish, lighten, need, scratch

need(LIGHTEN, "build lighten first")
known = json.loads(lighten("data", "list", "--json", "-").stdout)
if not next(row["present"] for row in known if row["id"] == "minilm-l6"):
    print("skipped: MiniLM is not there (lighten data get minilm-l6)")
    raise SystemExit(77)
folder = scratch()
draw = random.Random(4)
TOPICS = ["cats and kittens", "compilers and linkers", "bread and cakes"]
BEGINNINGS = ["a book about", "how to love", "the history of", "pictures of", "a club for", "songs about", "a shop for", "news about", "my life with", "the best"]
topic_of = [i % 3 for i in range(90)]
texts = [f"{BEGINNINGS[i // 3 % 10]} {TOPICS[topic_of[i]]}, part {i // 30 + 1}" for i in range(90)]


def write(name, text):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def lines(values):
    return "".join(f"{value}\n" for value in values)


def jsonl(values):
    return lines(json.dumps({"text": value}) for value in values)


def same(what, ours, theirs, name):
    check((ours / name).read_bytes() == (theirs / name).read_bytes(), f"{what}: texts give the bytes of their vectors")


text_file, json_file = write("t.txt", lines(texts)), write("t.jsonl", jsonl(texts))
csv_file = write("t.csv", "n,text\n" + lines(f'{i},"{text}"' for i, text in enumerate(texts)))
for file in (text_file, json_file, csv_file):
    done = lighten("embed", file, "-o", f"{file}.npy")
    check(done.returncode == 0, f"embed {file.suffix}", done)
vectors = f"{text_file}.npy"
check(all(np.array_equal(np.load(vectors), np.load(f"{file}.npy")) for file in (json_file, csv_file)), "lines, .jsonl and .csv hold the same texts")

# Bags of nine: how many are about compilers.
order = list(range(90))
draw.shuffle(order)
bag = {i: place // 9 for place, i in enumerate(order)}
counts = write("bags.csv", "bag,count\n" + lines(f"{b},{sum(topic_of[i] == 1 for i in order if bag[i] == b)}" for b in range(10)))
members = write("members.csv", "id,bag\n" + lines(f"{i},{bag[i]}" for i in range(90)))
bags = ["train", "bags", "--bags", counts, "--members", members, "--epochs", 30, "--rounds", 1, "--batch", 30, "--threads", 1]
for name, features in (("bags-texts", json_file), ("bags-vectors", vectors)):
    done = lighten(*bags, "--features", features, "-o", folder / name)
    check(done.returncode == 0, f"train bags --features {str(features)[-5:]}", done)
same("train bags", folder / "bags-texts", folder / "bags-vectors", "predictions.csv")
new = write("new.txt", "a linker for compilers\nkittens in the garden\n")
done = lighten("train", "bags", "--apply", folder / "bags-texts", "--features", new, "-o", folder / "new.csv")
rows = list(csv.DictReader(open(folder / "new.csv"))) if done.returncode == 0 else []
check([row["label"] for row in rows] == ["1", "0"], "--apply labels new texts", done)

# A ring inside each topic.
edges = write("e.tsv", lines(f"{i}\t{(i + 3) % 90}" for i in range(90)))
labels = write("l.csv", "id,label,split\n" + lines(f"{i},{TOPICS[topic_of[i]]},{('train', 'validation', 'test')[i // 3 % 3]}" for i in range(90)))
graph = ["--edges", edges, "--labels", labels, "--epochs", 20, "--threads", 1]
for name, features in (("graph-texts", text_file), ("graph-vectors", vectors)):
    done = lighten("train", "graph", "--method", "gcn", *graph, "--features", features, "-o", folder / name)
    check(done.returncode == 0, f"train graph --features {str(features)[-4:]}", done)
same("train graph", folder / "graph-texts", folder / "graph-vectors", "predictions.csv")

# Clients with texts of every form, and the same with vectors.
forms = [("texts.txt", lines), ("texts.jsonl", jsonl), ("texts.csv", lambda values: "text\n" + lines(f'"{value}"' for value in values))]
whole = np.load(vectors)
for client, (name, form) in enumerate(forms):
    own = range(30 * client, 30 * client + 30)
    write(f"clients/c{client}/{name}", form([texts[i] for i in own]))
    table = "id,label\n" + lines(f"{row},{TOPICS[topic_of[i]]}" for row, i in enumerate(own) if row < 12)
    write(f"clients/c{client}/labels.csv", table)
    write(f"vector-clients/c{client}/labels.csv", table)
    np.save(folder / f"vector-clients/c{client}/features.npy", whole[list(own)])
federate = ["train", "federate", "--rounds", 20, "--clients-per-round", 3, "--learning-rate", 0.2, "--width", 16, "--threads", 1]
for name, clients in (("federate-texts", "clients"), ("federate-vectors", "vector-clients")):
    done = lighten(*federate, "--clients", folder / clients, "-o", folder / name)
    check(done.returncode == 0, f"train federate --clients {clients}", done)
same("train federate", folder / "federate-texts", folder / "federate-vectors", "predictions.csv")
for data in (new, folder / "clients" / "c1"):
    done = lighten("train", "federate", "--apply", folder / "federate-texts", "--data", data, "-o", folder / f"{data.name}.labels.csv")
    check(done.returncode == 0, f"train federate --apply --data {data.name}", done)
answers = [row["label"] for row in csv.DictReader(open(folder / "new.txt.labels.csv"))]
check(answers == ["compilers and linkers", "cats and kittens"], f"new texts are labelled: {answers}")

# A net of other vectors is not given texts; empty texts are said.
np.save(folder / "narrow.npy", whole[:, :6])
done = lighten(*bags, "--features", folder / "narrow.npy", "-o", folder / "narrow")
check(done.returncode == 0, "train bags on 6 columns", done)
check_error(lighten("train", "bags", "--apply", folder / "narrow", "--features", new, "-o", folder / "x.csv"), 1, ["new.txt", "384", "vectors of 6"], "texts for a net of vectors")
done = lighten("train", "bags", "--apply", folder / "bags-texts", "--features", write("gap.txt", "a linker\n\nkittens\n"), "-o", folder / "gap.csv")
check(done.returncode == 0 and "1 of 3 texts are empty" in done.stderr, "an empty text is a row, with a warning", done)
np.save(folder / "clients/c0/features.npy", whole[:30])
check_error(lighten(*federate, "--clients", folder / "clients", "-o", folder / "x"), 1, ["'c0'", "features.npy", "texts.txt", "keep one"], "two files of rows in a client")

check_error(lighten(*bags, "--features", write("bad.jsonl", '{"text": "a"}\n{"body": "b"}\n'), "-o", folder / "x"), 1, ["bad.jsonl", "line 2", "text"], "a line without a text")
check_error(lighten(*bags, "--features", write("bad.csv", "n,body\n1,b\n"), "-o", folder / "x"), 1, ["bad.csv", "text"], "a table without texts")
write("mixed/a/texts.txt", "one\n")
write("mixed/b/labels.csv", "id,label\n")
check_error(lighten(*federate, "--clients", folder / "mixed", "-o", folder / "x"), 1, ["'b' has no data", "texts"], "a client without data")
finish()
