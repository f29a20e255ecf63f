"""Pictures of a folder: label clean, train classify, distill; their files, their figures, their errors."""
import csv
import json
import random
import signal
import subprocess
import time

from support import LIGHTEN, check, check_error, finish, lighten, need, png, scratch

need(LIGHTEN, "build lighten first")
folder = scratch()
draw = random.Random(1)
SIDE, CLASSES, EACH = 16, ("bottom", "left", "right", "top"), 120


def picture(name):
    def bright(x, y):
        return {"top": y < 6, "bottom": y >= 10, "left": x < 6, "right": x >= 10}[name]

    return [[draw.randrange(90) + (110 if bright(x, y) else 20) for x in range(SIDE)] for y in range(SIDE)]


truth = {}
for name in CLASSES:
    (folder / "pictures" / name).mkdir(parents=True)
    for i in range(EACH):
        png(folder / "pictures" / name / f"{i}.png", picture(name))
        truth[f"{name}/{i}.png"] = name
given = {key: draw.choice([c for c in CLASSES if c != name]) if draw.random() < 0.25 else name for key, name in truth.items()}


def write_labels(path, labels):
    with open(path, "w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["id", "label"])
        rows.writerows(labels.items())


write_labels(folder / "noisy.csv", given)
common = ["--data", folder / "pictures", "--side", SIDE, "--grey", "--net", "mlp", "--width", 32, "--features", 32, "--batch-size", 32, "--quiet"]

# Wrong labels are found.
suspects = folder / "suspects.csv"
done = lighten("label", "clean", *common, "--labels", folder / "noisy.csv", "--epochs", 8, "--forget", 0.25, "-o", suspects, "--json", folder / "clean.json")
check(done.returncode == 0, "label clean", done)
rows = list(csv.DictReader(open(suspects)))
check(list(rows[0]) == ["id", "score", "given", "suggested"], "suspects.csv has id,score,given,suggested")
check(all(row["given"] == given[row["id"]] and row["suggested"] != row["given"] for row in rows), "each suspect names its label and another one")
check([float(row["score"]) for row in rows] == sorted((float(row["score"]) for row in rows), reverse=True), "the most doubtful stands first")
wrong = {key for key in truth if given[key] != truth[key]}
right = {row["id"] for row in rows if row["suggested"] == truth[row["id"]]} & wrong
check(len(right) > 0.9 * len(wrong) and len(right) > 0.9 * len(rows), f"{len(right)} of {len(wrong)} wrong labels are found and put right, among {len(rows)} suspects")
check(json.loads((folder / "clean.json").read_text())["suspects"] == len(rows), "--json counts them")
again = folder / "again.csv"
lighten("label", "clean", *common, "--labels", folder / "noisy.csv", "--epochs", 8, "--forget", 0.25, "-o", again, "--threads", 1)
lighten("label", "clean", *common, "--labels", folder / "noisy.csv", "--epochs", 8, "--forget", 0.25, "-o", folder / "third.csv", "--threads", 1)
check(again.read_bytes() == (folder / "third.csv").read_bytes(), "the same seed and threads give the same bytes")

# A classifier, and its file.
done = lighten("train", "classify", "--method", "ce", *common, "--epochs", 8, "-o", folder / "net", "--json", folder / "net.json")
check(done.returncode == 0, "train classify --method ce", done)
figures = json.loads((folder / "net.json").read_text())
check(figures["test_accuracy"] > 0.95, f"it learns ({figures['test_accuracy']:.3f})")
config = json.loads((folder / "net/config.json").read_text())
check(config["class_names"] == list(CLASSES) and config["net"]["architecture"] == "mlp", "config.json says what it is")
check(not (folder / "net.work").exists(), "no work is left over")
done = lighten("train", "classify", "--method", "nested-coteaching", *common, "--labels", folder / "noisy.csv", "--epochs", 6, "-o", folder / "pair")
check(done.returncode == 0 and (folder / "pair/net1/config.json").exists() and (folder / "pair/net2/model.safetensors").exists(), "nested-coteaching writes two classifiers", done)

# Interrupted and gone on.
long = ["train", "classify", "--method", "ce", *common, "--epochs", 40, "--threads", 1]
check(lighten(*long, "-o", folder / "whole").returncode == 0, "a longer training")
process = subprocess.Popen([str(LIGHTEN), *map(str, long), "-o", str(folder / "stopped")], stderr=subprocess.PIPE, text=True)
while not (folder / "stopped.work/checkpoint.safetensors").exists() and process.poll() is None:
    time.sleep(0.02)
process.send_signal(signal.SIGINT)
message = process.communicate()[1]
if process.returncode == 130:
    check("goes on from there" in message, "Ctrl-C says how to go on")
    check(not (folder / "stopped").exists(), "an unfinished training writes no output")
check(lighten(*long, "-o", folder / "stopped").returncode == 0, "the same command goes on")
check((folder / "stopped/model.safetensors").read_bytes() == (folder / "whole/model.safetensors").read_bytes(), "to the same bytes as without the stop")

# Distilled.
lighten("train", "classify", "--method", "ce", *common[:6], "mlp", "--width", 4, "--features", 4, "--epochs", 1, "--quiet", "-o", folder / "small")
done = lighten("distill", "--method", "meal-v2", "--student", folder / "small", "--teachers", folder / "net", "--data", folder / "pictures", "--augment", "none",
               "--epochs", 10, "--quiet", "-o", folder / "better", "--json", folder / "better.json")
check(done.returncode == 0, "distill --method meal-v2", done)
figures = json.loads((folder / "better.json").read_text())
check(figures["accuracy"] >= figures["accuracy_before"], f"the student is no worse ({figures['accuracy_before']:.3f} -> {figures['accuracy']:.3f})")

# Bad input.
write_labels(folder / "unknown.csv", {**given, "top/3.png": "middle"})
check_error(lighten("label", "clean", *common, "--labels", folder / "unknown.csv", "-o", folder / "x.csv"), 1, ["unknown.csv", "line", "middle"], "a label of an unknown class")
(folder / "twice.csv").write_text((folder / "noisy.csv").read_text() + "top/3.png,top\n")
check_error(lighten("label", "clean", *common, "--labels", folder / "twice.csv", "-o", folder / "x.csv"), 1, ["twice.csv", "second label", "top/3.png"], "a sample with two labels")
check_error(lighten("train", "classify", "--method", "ce", *common, "-o", folder / "net"), 1, ["net", "--force"], "an output that exists")
check_error(lighten("train", "classify", "--method", "cee", *common, "-o", folder / "x"), 2, ["cee", "ce"], "an unknown method")
check_error(lighten("train", "clasify"), 2, ["clasify", "classify"], "an unknown task")
check_error(lighten("train", "classify", "--method", "ce", "-o", folder / "x"), 2, ["--data"], "no data")
(folder / "pictures/top/broken.png").write_text("no picture")
check_error(lighten("train", "classify", "--method", "ce", *common, "-o", folder / "x"), 1, ["broken.png", "PNG"], "a picture that does not decode")
whole = (folder / "pictures/top/0.png").read_bytes()
for place in ("top/cut.png", "left/cut too.png"):
    (folder / "pictures" / place).write_bytes(whole[: len(whole) // 2])
check_error(lighten("train", "classify", "--method", "ce", *common, "-o", folder / "x"), 1, ["3 of 483", "top/broken.png", "top/cut.png", "left/cut too.png"], "all pictures that do not decode")
for place in ("top/broken.png", "top/cut.png", "left/cut too.png"):
    (folder / "pictures" / place).unlink()
write_labels(folder / "one.csv", {key: "top" for key in truth})
check_error(lighten("train", "classify", "--method", "ce", *common, "--labels", folder / "one.csv", "-o", folder / "x"), 2, ["'top'", "two or more"], "one class only")
check_error(lighten("distill", "--method", "meal-v2", "--student", folder / "small", "--teachers", folder / "none", "--data", folder / "pictures", "-o", folder / "x"), 1, ["none", "classifier"], "no such teacher")
finish()
