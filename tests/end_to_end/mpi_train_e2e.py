"""Training under mpirun: gradients, norms and buckets over two and three processes; `lighten train classify` gives the weights of one
process; a killed process ends all within ten seconds and leaves a checkpoint from which the same command goes on."""
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time

import numpy as np
from support import BUILD, LIGHTEN, MPI, ROOT, check, finish, lighten, need, png, scratch

need(LIGHTEN, "build lighten first")
need(BUILD / "train_test", "build train_test first")
if shutil.which("mpirun") is None:
    print("skipped: mpirun is not installed")
    sys.exit(77)
folder = scratch()


def mpirun(processes, program, *arguments):
    return ["mpirun", "-n", str(processes), str(program), *map(str, arguments)]


for processes in (2, 3):
    done = subprocess.run(mpirun(processes, BUILD / "train_test", "--gtest_filter=OverRanks.*", "--gtest_color=no"), env=MPI, capture_output=True, text=True, cwd=ROOT, timeout=120)
    check(done.returncode == 0 and done.stdout.count("[  PASSED  ] 6 tests") == processes, f"train_test on {processes} processes", done)

rng = np.random.default_rng(2)
data = folder / "bars"
for kind in range(3):
    (data / f"kind{kind}").mkdir(parents=True)
    for i in range(60):
        picture = rng.integers(0, 90, (16, 16)).astype(np.uint8)
        picture[2 + 4 * kind : 6 + 4 * kind, 2:14] += 100
        png(data / f"kind{kind}" / f"{i}.png", picture)


def weights(net):
    raw = (net / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__", None)
    return {name: np.frombuffer(raw[8 + size + t["data_offsets"][0] : 8 + size + t["data_offsets"][1]], np.float32) for name, t in header.items() if t["dtype"] == "F32"}


def distance(a, b):
    a, b = weights(a), weights(b)
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


def train(net, epochs, out):
    return ["train", "classify", "--method", "ce", "--data", data, "--side", 16, "--grey", "--net", net, "--width", 8, "--features", 16, "--batch-size", 30, "--epochs", epochs,
            "--learning-rate", 0.02, "--threads", 1, "-o", out]  # fmt: skip


for net, tolerance in (("mlp", 1e-5), ("conv3", 1e-3)):
    one, two = folder / f"{net}-one", folder / f"{net}-two"
    done = lighten(*train(net, 5, one))
    check(done.returncode == 0, f"{net}, one process", done)
    done = subprocess.run(mpirun(2, LIGHTEN, *train(net, 5, two), "--json", folder / "two.json"), env=MPI, capture_output=True, text=True, cwd=ROOT, timeout=120)
    check(done.returncode == 0 and json.loads((folder / "two.json").read_text())["ranks"] == 2, f"{net}, two processes", done)
    check(distance(one, two) < tolerance, f"{net}: weights of one and of two processes differ by {distance(one, two):.2g}")
    check(done.stdout.count("accuracy") == 1 and not (folder / f"{net}-two.work").exists(), "one process reports, nothing is left", done)

# A long training; one process is killed in the middle of it.
out = folder / "killed"
command = mpirun(2, LIGHTEN, *train("mlp", 150, out))
run = subprocess.Popen(command, env=MPI, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
log = folder / "killed.work" / "log.jsonl"
until = time.time() + 60
while time.time() < until and (not log.exists() or log.read_text().count("\n") < 5):
    time.sleep(0.05)
ranks = subprocess.run(["pgrep", "-P", str(run.pid), "-x", "lighten"], capture_output=True, text=True).stdout.split()
check(len(ranks) == 2 and run.poll() is None, f"two processes are at work: {ranks}")
begin = time.time()
os.kill(int(ranks[-1]), signal.SIGKILL)
output, errors = run.communicate(timeout=60)
check(run.returncode != 0 and time.time() - begin < 10, f"a killed process ends all ({time.time() - begin:.1f} s)")
check(errors.count("exited on signal 9") == 1, f"one message says what happened: {errors[-300:]}")
check(not out.exists() and (folder / "killed.work" / "checkpoint.safetensors").exists(), "no result, but a checkpoint")
before = log.read_text().count("\n")
check(5 <= before < 150, f"it was killed after {before} epochs")
done = subprocess.run(command, env=MPI, capture_output=True, text=True, cwd=ROOT, timeout=120)
check(done.returncode == 0 and "going on at epoch" in done.stderr, "the same command goes on", done)
whole = subprocess.run(mpirun(2, LIGHTEN, *train("mlp", 150, folder / "whole")), env=MPI, capture_output=True, text=True, cwd=ROOT, timeout=120)
check(whole.returncode == 0 and (out / "model.safetensors").read_bytes() == (folder / "whole" / "model.safetensors").read_bytes(), "and ends in the same bytes", whole)

# Ctrl-C, which a terminal sends to mpirun and to all processes.
command = mpirun(2, LIGHTEN, *train("mlp", 1000, folder / "stopped"))
run = subprocess.Popen(command, env=MPI, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)
log, until = folder / "stopped.work" / "log.jsonl", time.time() + 60
while time.time() < until and (not log.exists() or log.read_text().count("\n") < 5):
    time.sleep(0.05)
begin = time.time()
os.killpg(run.pid, signal.SIGINT)
output, errors = run.communicate(timeout=60)
check(run.returncode != 0 and time.time() - begin < 10, f"Ctrl-C ends all ({time.time() - begin:.1f} s)")
check(not (folder / "stopped").exists() and (folder / "stopped.work" / "checkpoint.safetensors").exists(), "no result, but a checkpoint")
done = subprocess.run(command, env=MPI, capture_output=True, text=True, cwd=ROOT, timeout=120)
check(done.returncode == 0 and "going on at epoch" in done.stderr, "the same command goes on", done)
whole = subprocess.run(mpirun(2, LIGHTEN, *train("mlp", 1000, folder / "whole2")), env=MPI, capture_output=True, text=True, cwd=ROOT, timeout=120)
check((folder / "stopped" / "model.safetensors").read_bytes() == (folder / "whole2" / "model.safetensors").read_bytes(), "and ends in the same bytes")

# What works in one process says so.
done = subprocess.run(mpirun(2, LIGHTEN, "train", "classify", "--method", "nested-coteaching", "--data", data, "-o", folder / "x"), env=MPI, capture_output=True, text=True, cwd=ROOT, timeout=60)
check(done.returncode != 0 and "works in one process" in done.stderr and not (folder / "x").exists(), "a method without ranks is refused", done)
finish()
