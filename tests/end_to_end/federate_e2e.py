"""lighten train federate on clients made here: files, bytes, bad input, and two processes that give the bytes of one."""
import csv
import json
import shutil
import subprocess

import numpy as np
from support import LIGHTEN, MPI, ROOT, check, check_error, finish, lighten, need, png, scratch

need(LIGHTEN, "build lighten first")
folder = scratch()
rng = np.random.default_rng(3)
names = ["oak", "elm, or so", "ash"]
clients = folder / "clients"
truth = {}


def make_client(name, count, labelled, first):
    place = clients / name
    place.mkdir(parents=True)
    kinds = (first + np.arange(count) % 2) % 3
    features = rng.normal(0, 0.4, (count, 6)).astype(np.float32)
    features[np.arange(count), kinds] += 2
    np.save(place / "features.npy", features)
    with open(place / "labels.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "label"])
        for i in range(labelled):
            rows.writerow([i, names[kinds[i]]])
        rows.writerow([count - 1, ""])
    truth[name] = [names[k] for k in kinds]


for number in range(5):
    make_client(f"client{number}", 40, 6, number)
make_client("silent", 30, 0, 1)
(clients / "silent" / "labels.csv").unlink()

run = ["train", "federate", "--clients", clients, "--rounds", 30, "--clients-per-round", 3, "--learning-rate", 0.2, "--width", 16, "--validation", 0.2]
done = lighten(*run, "-o", folder / "one", "--json", folder / "one.json")
check(done.returncode == 0, "federate", done)
figures = json.loads((folder / "one.json").read_text())
net = 4 * (6 * 16 + 16 + 16 * 3 + 3)
check(figures["bytes_down"] == 30 * 3 * net and figures["bytes_up"] == 30 * 3 * (net + 8), f"bytes are those of the weights: {figures['bytes_down']}, {figures['bytes_up']}")
check(figures["bytes_up_per_round"] == 3 * (net + 8) and figures["clients_without_labels"] == 1, "bytes a round; one client without labels")
lines = [json.loads(line) for line in (folder / "one" / "log.jsonl").read_text().splitlines()]
check(len(lines) == 30 and sum(line["observed"]["bytes_up"] for line in lines) == figures["bytes_up"], "the log has a line a round with its bytes")
with open(folder / "one" / "predictions.csv", newline="") as file:
    rows = list(csv.DictReader(file))
right = np.mean([row["label"] == truth[row["client"]][int(row["id"])] for row in rows])
check(len(rows) == 230 and right > 0.95, f"predictions for all samples, {100 * right:.0f} % right")
check(not (folder / "one.work").exists(), "no work folder is left")
for method in ("fedavg", "global-only", "local-only"):
    done = lighten(*run, "--method", method, "-o", folder / method, "--json", folder / f"{method}.json")
    check(done.returncode == 0 and json.loads((folder / f"{method}.json").read_text())["bytes_down"] == figures["bytes_down"], f"--method {method} sends the same", done)

if shutil.which("mpirun") is None:
    print("skipped here: two processes (mpirun is not installed)")
else:
    for processes in (2, 3):
        out = folder / f"ranks{processes}"
        done = subprocess.run(["mpirun", "-n", str(processes), str(LIGHTEN), *map(str, run), "-o", str(out), "--json", f"{out}.json"], env=MPI, capture_output=True, text=True, cwd=ROOT,
                              timeout=120)  # fmt: skip
        check(done.returncode == 0 and json.loads((folder / f"ranks{processes}.json").read_text())["ranks"] == processes, f"{processes} processes", done)
        same = all((folder / "one" / name).read_bytes() == (out / name).read_bytes() for name in ("net/model.safetensors", "predictions.csv"))
        check(same, f"{processes} processes give the bytes of one")

# ---------------------------------------------------------------- pictures

letters = folder / "letters"
for number in range(3):
    (letters / f"c{number}").mkdir(parents=True)
    table = "id,label\n"
    for i in range(12):
        kind = (number + i) % 2
        picture = np.full((20, 20), 255, np.uint8)
        picture[4:16, 8:12] = 0 if kind else 255
        picture[8:12, 4:16] = 255 if kind else 0
        png(letters / f"c{number}" / f"{i}.png", picture)
        table += f"{i}.png,{'I' if kind else '-'}\n" if i < 8 else ""
    (letters / f"c{number}" / "labels.csv").write_text(table)
done = lighten("train", "federate", "--clients", letters, "--grey", "--side", 20, "--width", 4, "--rounds", 10, "--clients-per-round", 3, "-o", folder / "pictures")
check(done.returncode == 0, "pictures", done)
with open(folder / "pictures" / "predictions.csv", newline="") as file:
    right = np.mean([(row["label"] == "I") == ((int(row["client"][1:]) + int(row["id"].split(".")[0])) % 2 == 1) for row in csv.DictReader(file)])
check(right == 1, f"bars are told apart ({right:.2f})")

# ---------------------------------------------------------------- bad input


def broken(name, change):
    place = folder / name
    shutil.copytree(clients, place)
    change(place)
    return lighten("train", "federate", "--clients", place, "-o", folder / "x")


def add(client, text):
    return lambda place: (place / client / "labels.csv").open("a").write(text)


check_error(broken("empty", lambda place: (place / "desert").mkdir()), 1, ["'desert' has no data", "features.npy", "texts.txt"], "a client without data")
check_error(broken("rows0", lambda place: np.save(place / "client1" / "features.npy", np.zeros((0, 6), np.float32))), 1, ["client1", "no data"], "a client with no rows")
check_error(broken("row", add("client2", "99,oak\n")), 1, ["client2", "line 9", "'99'"], "an unknown id")
check_error(broken("twice", add("client2", "3,oak\n")), 1, ["client2", "line 9", "'3'", "line 5"], "an id twice")
check_error(broken("width", lambda place: np.save(place / "client3" / "features.npy", np.zeros((40, 7), np.float32))), 1, ["client3", "7 columns", "6"], "another width")
check_error(broken("nan", lambda place: np.save(place / "client3" / "features.npy", np.full((40, 6), np.nan, np.float32))), 1, ["client3", "row 0"], "NaN")


def no_labels(place):
    for table in place.glob("*/labels.csv"):
        table.unlink()


check_error(broken("none", no_labels), 2, ["no client has a label"], "no label anywhere")
check_error(lighten("train", "federate", "--clients", folder / "nowhere", "-o", folder / "x"), 1, ["nowhere", "no such folder"], "no folder")
check_error(lighten(*run, "-o", folder / "one"), 1, ["exists", "--force"], "an output that exists")
finish()
