"""`--apply` of train classify, bags and federate: what a training wrote labels new data as the training itself did; its files, its errors."""
import csv
import json
import random
import shutil

import numpy as np
from support import LIGHTEN, check, check_error, finish, lighten, need, png, scratch

need(LIGHTEN, "build lighten first")
folder = scratch()
draw, rng = random.Random(1), np.random.default_rng(5)


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def save(name, array):
    np.save(folder / name, array)
    return folder / name


def write(name, text):
    (folder / name).write_text(text)
    return folder / name


def close(rows, others):
    """The same ids and labels, and probabilities that differ in the last digit at most (sums go in another order)."""
    same = [(a["id"], a["label"]) == (b["id"], b["label"]) and abs(float(a["probability"]) - float(b["probability"])) < 5e-6 for a, b in zip(rows, others)]
    return len(rows) == len(others) and all(same)


def check_rest(what, command, out, output_flags=()):
    """A second run gives the same bytes; an existing file stays without --force; what only trains is refused."""
    again = out.with_name("again-" + out.name)
    done = lighten(*command, *output_flags, "-o", again)
    check(done.returncode == 0 and again.read_bytes() == out.read_bytes(), f"{what}: run again, the same bytes", done)
    check_error(lighten(*command, "-o", out), 1, [out.name, "--force"], f"{what}: an output that exists")
    done = lighten(*command, "--force", *output_flags, "-o", again)
    check(done.returncode == 0 and again.read_bytes() == out.read_bytes(), f"{what}: --force replaces it", done)
    check_error(lighten(*command, "--epochs" if "federate" not in command else "--rounds", 3, "-o", folder / "x.csv"), 2, ["--apply", "training"], f"{what}: a flag of training")
    check(not list(folder.glob("*.tmp-*")) and not (folder / "x.csv").exists(), f"{what}: nothing else is left")


# ---------------------------------------------------------------- classify

SIDE, CLASSES = 16, ("bottom", "left", "right, or so", "top")


def picture(name):
    def bright(x, y):
        return {"top": y < 6, "bottom": y >= 10, "left": x < 6, "right, or so": x >= 10}[name]

    return [[draw.randrange(120) + (80 if bright(x, y) else 20) for x in range(SIDE)] for y in range(SIDE)]


for side, each in (("train", 40), ("validation", 12), ("test", 20)):
    for name in CLASSES:
        (folder / "pictures" / side / name).mkdir(parents=True)
        for i in range(each):
            png(folder / "pictures" / side / name / f"{i}.png", picture(name))
test = folder / "pictures" / "test"
train = ["train", "classify", "--data", folder / "pictures", "--side", SIDE, "--net", "mlp", "--width", 16, "--features", 16, "--batch-size", 32, "--epochs", 4, "--quiet"]
for method, more in (("ce", []), ("nested-coteaching", ["--grey", "--forget", 0.1, "--finetune-epochs", 1])):
    net, out = folder / method, folder / f"{method}.csv"
    done = lighten(*train, "--method", method, *more, "-o", net, "--json", folder / "net.json")
    check(done.returncode == 0, f"{method}: trained", done)
    expected = json.loads((folder / "net.json").read_text())["test_accuracy"]
    apply = ["train", "classify", "--apply", net, "--data", test]
    done = lighten(*apply, "-o", out, "--probabilities", folder / f"{method}.npy", "--json", folder / "apply.json")
    check(done.returncode == 0, f"{method}: --apply", done)
    rows = table(out)
    check(list(rows[0]) == ["id", "label", "probability"] and len(rows) == 80 and rows[0]["id"] == "bottom/0.png", f"{method}: a line for each of the 80 pictures")
    right = np.mean([row["label"] == row["id"].split("/")[0] for row in rows])
    check(expected > 0.5 and abs(right - expected) < 1e-9, f"{method}: as right as the training said ({right:.4f}, {expected:.4f})")
    p = np.load(folder / f"{method}.npy")
    check(p.shape == (80, 4) and np.abs(p.sum(1) - 1).max() < 1e-5, f"{method}: probabilities of all classes")
    check(all(CLASSES[k] == row["label"] and abs(q - float(row["probability"])) < 1e-6 for k, q, row in zip(p.argmax(1), p.max(1), rows)), f"{method}: the likeliest stands in the table")
    check(json.loads((folder / "apply.json").read_text())["classes"] == list(CLASSES), f"{method}: --json")
    done = lighten(*apply, "--top", 3, "-o", folder / f"{method}-top.csv")
    ranked = table(folder / f"{method}-top.csv")
    order = np.argsort(-p, 1, kind="stable")[:, :3]
    check(done.returncode == 0 and [row["label"] for row in ranked] == [CLASSES[k] for line in order for k in line] and [row["rank"] for row in ranked] == ["1", "2", "3"] * 80, f"{method}: --top 3", done)
    check_rest(method, apply, out)

shutil.copytree(test / "top", folder / "flat")
done = lighten("train", "classify", "--apply", folder / "ce", "--data", folder / "flat", "-o", folder / "flat.csv")
tops = [row | {"id": row["id"].removeprefix("top/")} for row in table(folder / "ce.csv") if row["id"].startswith("top/")]
check(done.returncode == 0 and close(table(folder / "flat.csv"), tops), "pictures without sub-folders get the same labels", done)

apply = ["train", "classify", "--apply", folder / "ce", "--data"]
whole = (folder / "flat/0.png").read_bytes()
for name in ("cut 1.png", "cut 2.jpg"):
    (folder / "flat" / name).write_bytes(whole[: len(whole) // 2])
check_error(lighten(*apply, folder / "flat", "-o", folder / "x.csv"), 1, ["2 of 22", "cut 1.png", "cut 2.jpg"], "all pictures that do not decode are named")
check_error(lighten(*apply, folder / "nowhere", "-o", folder / "x.csv"), 1, ["nowhere", "no such folder"], "no such folder")
(folder / "empty").mkdir()
check_error(lighten(*apply, folder / "empty", "-o", folder / "x.csv"), 1, ["empty", "no PNG or JPEG"], "a folder without pictures")
check_error(lighten("train", "classify", "--apply", folder / "ce", "-o", folder / "x.csv"), 2, ["--data"], "no data")
check_error(lighten(*train, "--top", 3, "-o", folder / "x"), 2, ["--top", "--apply"], "a flag of --apply in a training")
check_error(lighten(*apply, test, "-o", folder / "no/x.csv"), 1, ["no/x.csv"], "an output that cannot be written")
check_error(lighten(*apply, test, "-o", folder / "x.csv", "--probabilities", folder / "ce.npy"), 1, ["ce.npy", "--force"], "probabilities that exist")
check_error(lighten("train", "classify", "--apply", folder / "pictures", "--data", test, "-o", folder / "x.csv"), 1, ["config.json", "`lighten train classify`"], "a folder that no training wrote")
config = json.loads((folder / "ce/config.json").read_text())
for what, change, words in (
    ("a class too few", {"class_names": list(CLASSES[:3])}, ["config.json", "class_names"]), ("other channels", {"net": config["net"] | {"channels": 1}}, ["config.json", "mean"]),
    ("another side", {"net": config["net"] | {"height": 20, "width": 20}}, ["model.safetensors", "the net needs"]),
):  # fmt: skip
    shutil.copytree(folder / "ce", folder / "changed", dirs_exist_ok=True)
    (folder / "changed/config.json").write_text(json.dumps(config | change))
    check_error(lighten("train", "classify", "--apply", folder / "changed", "--data", test, "-o", folder / "x.csv"), 1, words, f"a classifier with {what}")
known = json.loads(lighten("data", "list", "--json", "-").stdout)
if next(row["present"] for row in known if row["id"] == "fashion"):
    check_error(lighten(*apply, "fashion", "--limit", 3, "-o", folder / "x.csv"), 2, ["3 x 16 x 16", "1 x 28 x 28"], "a data set of other channels")

# ---------------------------------------------------------------- bags

count = 400
positive = rng.random(count) < 0.3
points = rng.normal(size=(count, 6)).astype(np.float32)
points[:, 0] += 3 * positive
points[:, 1] += 3 * ~positive
bag = np.arange(count) // 10
bags = write("bags.csv", "bag,count\n" + "".join(f"b{b},{positive[bag == b].sum()}\n" for b in range(40)))
members = write("members.csv", "id,bag\n" + "".join(f"{i},b{b}\n" for i, b in enumerate(bag)))
point_file = save("points.npy", points)
for method in ("llp-bp", "dllp"):
    out = folder / f"bags-{method}"
    done = lighten("train", "bags", "--method", method, "--features", point_file, "--bags", bags, "--members", members, "--epochs", 10, "--batch", 100, "-o", out)
    check(done.returncode == 0, f"train bags --method {method}", done)
    apply = ["train", "bags", "--apply", out, "--features", point_file]
    done = lighten(*apply, "-o", folder / f"{method}-bags.csv", "--json", folder / "bags.json")
    check(done.returncode == 0 and (folder / f"{method}-bags.csv").read_bytes() == (out / "predictions.csv").read_bytes(), f"{method}: --apply says what the training said", done)
    rows = table(folder / f"{method}-bags.csv")
    check(json.loads((folder / "bags.json").read_text())["positives"] == sum(row["label"] == "1" for row in rows), f"{method}: --json counts the positives")
    check_rest(method, apply, folder / f"{method}-bags.csv")
done = lighten("train", "classify", "--method", "llp-bp", "--apply", folder / "bags-llp-bp", "--features", save("few.npy", points[100:107]), "-o", folder / "few.csv")
rows = [row | {"id": str(i)} for i, row in enumerate(table(folder / "bags-llp-bp/predictions.csv")[100:107])]
check(done.returncode == 0 and close(table(folder / "few.csv"), rows), "train classify --method llp-bp takes it too; other rows get the same labels", done)
apply = ["train", "bags", "--apply", folder / "bags-llp-bp"]
check_error(lighten(*apply, "-o", folder / "x.csv"), 2, ["--features"], "no features")
check_error(lighten(*apply, "--features", save("wide.npy", np.ones((3, 7), np.float32)), "-o", folder / "x.csv"), 1, ["wide.npy", "7 columns", "6"], "features of another width")
check_error(lighten(*apply, "--features", save("none.npy", points[:0]), "-o", folder / "x.csv"), 1, ["none.npy", "no rows"], "features without rows")
check_error(lighten(*apply, "--features", save("nan.npy", np.full((2, 6), np.nan, np.float32)), "-o", folder / "x.csv"), 1, ["nan.npy", "row 0"], "NaN")
check_error(lighten("train", "bags", "--apply", folder / "ce", "--features", point_file, "-o", folder / "x.csv"), 1, ["bags.json", "`lighten train bags`"], "a folder of another training")
check_error(lighten("train", "classify", "--apply", folder / "bags-dllp", "--data", test, "-o", folder / "x.csv"), 1, ["config.json", "`lighten train bags --apply`"], "and the other way round")
(folder / "bags-dllp/bags.json").write_text('{"format": "lighten-bags-1", "inputs": 0, "nets": 1}')
check_error(lighten("train", "bags", "--apply", folder / "bags-dllp", "--features", point_file, "-o", folder / "x.csv"), 1, ["bags.json", "inputs 0"], "a damaged bags.json")

# ---------------------------------------------------------------- federate

names, clients = ["oak", "elm, or so", "ash"], folder / "clients"
for number in range(4):
    (clients / f"c{number}").mkdir(parents=True)
    kinds = (number + np.arange(40) % 2) % 3
    features = rng.normal(0, 0.4, (40, 6)).astype(np.float32)
    features[np.arange(40), kinds] += 2
    np.save(clients / f"c{number}" / "features.npy", features)
    rows = "".join(f'{i},"{names[kinds[i]]}"\n' for i in range(8))
    (clients / f"c{number}" / "labels.csv").write_text("id,label\n" + rows)
run = ["train", "federate", "--clients", clients, "--rounds", 15, "--clients-per-round", 2, "--learning-rate", 0.2, "--width", 8]
done = lighten(*run, "-o", folder / "fed")
check(done.returncode == 0, "train federate", done)
told = table(folder / "fed/predictions.csv")
for data in (clients / "c2", clients / "c2/features.npy"):
    done = lighten("train", "federate", "--apply", folder / "fed", "--data", data, "-o", folder / "fed.csv", "--force", "--probabilities", folder / "fed.npy")
    check(done.returncode == 0 and close(table(folder / "fed.csv"), [row for row in told if row["client"] == "c2"]), f"federate: --apply says what the training said ({data.name})", done)
p = np.load(folder / "fed.npy")
check(p.shape == (40, 3) and [sorted(names)[k] for k in p.argmax(1)] == [row["label"] for row in table(folder / "fed.csv")], "federate: probabilities of all classes")
check_rest("federate", ["train", "federate", "--apply", folder / "fed", "--data", clients / "c2"], folder / "fed.csv")
letters = folder / "letters"
for number in range(3):
    (letters / f"c{number}").mkdir(parents=True)
    rows = "id,label\n"
    for i in range(10):
        bar = np.full((20, 20), 255, np.uint8)
        bar[(slice(4, 16), slice(8, 12)) if (number + i) % 2 else (slice(8, 12), slice(4, 16))] = draw.randrange(60)
        png(letters / f"c{number}" / f"{i}.png", bar)
        rows += f"{i}.png,{'I' if (number + i) % 2 else '-'}\n" if i < 8 else ""
    (letters / f"c{number}" / "labels.csv").write_text(rows)
done = lighten("train", "federate", "--clients", letters, "--side", 16, "--width", 4, "--rounds", 6, "--clients-per-round", 3, "-o", folder / "fed-pictures")
check(done.returncode == 0, "train federate on pictures", done)
done = lighten("train", "federate", "--apply", folder / "fed-pictures", "--data", letters / "c1", "--top", 1, "-o", folder / "bars.csv")
check(done.returncode == 0 and close(table(folder / "bars.csv"), [row for row in table(folder / "fed-pictures/predictions.csv") if row["client"] == "c1"]), "federate, pictures: --apply says what the training said", done)
done = lighten("train", "classify", "--apply", folder / "fed-pictures/net", "--data", letters / "c1", "-o", folder / "bars2.csv")
check(done.returncode == 0 and close(table(folder / "bars2.csv"), table(folder / "bars.csv")), "its net is a classifier as others", done)
apply = ["train", "federate", "--apply", folder / "fed"]
check_error(lighten(*apply, "-o", folder / "x.csv"), 2, ["--data"], "no data")
check_error(lighten(*apply, "--data", folder / "wide.npy", "-o", folder / "x.csv"), 1, ["wide.npy", "7 columns", "6"], "features of another width")
check_error(lighten(*apply, "--data", letters / "c1", "-o", folder / "x.csv"), 1, ["features.npy"], "pictures for a net of features")
check_error(lighten("train", "federate", "--apply", folder / "fed-pictures", "--data", folder / "wide.npy", "-o", folder / "x.csv"), 1, ["wide.npy", "folder"], "features for a net of pictures")
check_error(lighten(*apply, "--clients", clients, "--data", clients / "c2", "-o", folder / "x.csv"), 2, ["--clients", "training"], "clients with --apply")
check_error(lighten("train", "federate", "--apply", folder / "ce", "--data", clients / "c2", "-o", folder / "x.csv"), 1, ["net/config.json", "`lighten train federate`"], "a folder of another training")
check_error(lighten(*run, "--data", clients / "c2", "-o", folder / "x"), 2, ["--data", "--apply"], "--data in a training")
check_error(lighten("train", "federate", "-o", folder / "x"), 2, ["--clients"], "neither --clients nor --apply")
config = json.loads((folder / "fed/net/config.json").read_text())
(folder / "fed/net/config.json").write_text(json.dumps(config | {"class_names": names[:2]}))
check_error(lighten(*apply, "--data", clients / "c2", "-o", folder / "x.csv"), 1, ["config.json", "class_names"], "a net with a class too few")
finish()
