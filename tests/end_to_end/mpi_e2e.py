"""lighten under mpirun: a search over two ranks finds what one process finds; a killed rank ends the run within ten seconds."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np

from support import LIGHTEN, MPI, ROOT, check, finish, lighten, need, scratch

need(LIGHTEN, "build lighten first")
if shutil.which("mpirun") is None:
    print("skipped: mpirun is not installed")
    sys.exit(77)
folder = scratch()
rng = np.random.default_rng(1)


def mpirun(*arguments):
    return ["mpirun", "-n", "2", str(LIGHTEN), *map(str, arguments)]


np.save(folder / "c.npy", rng.integers(0, 256, (50000, 32), np.uint8))
np.save(folder / "q.npy", rng.integers(0, 256, (300, 32), np.uint8))
check(lighten("index", "build", "--codes", folder / "c.npy", "-o", folder / "idx").returncode == 0, "build")
search = ["index", "search", folder / "idx", "--queries", folder / "q.npy", "-k", 9, "--batch", 64, "--threads", 1]
check(lighten(*search, "-o", folder / "one.npy", "--distances", folder / "d1.npy").returncode == 0, "one process")
done = subprocess.run(mpirun(*search, "-o", folder / "two.npy", "--distances", folder / "d2.npy", "--json", folder / "two.json"), env=MPI, capture_output=True, text=True, cwd=ROOT)
check(done.returncode == 0 and json.loads((folder / "two.json").read_text())["ranks"] == 2, "two ranks share one search", done)
same = all(np.array_equal(np.load(folder / a), np.load(folder / b)) for a, b in (("one.npy", "two.npy"), ("d1.npy", "d2.npy")))
check(same, "two ranks find what one process finds")

# A long search; one rank is killed in the middle of it.
run = subprocess.Popen(mpirun(*search, "--repeat", 100000, "-o", folder / "x.npy"), env=MPI, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
time.sleep(3)
ranks = subprocess.run(["pgrep", "-P", str(run.pid), "-x", "lighten"], capture_output=True, text=True).stdout.split()
check(len(ranks) == 2 and run.poll() is None, f"two ranks are at work: {ranks}")
begin = time.time()
os.kill(int(ranks[-1]), signal.SIGKILL)
out, err = run.communicate(timeout=60)
check(run.returncode != 0 and time.time() - begin < 10, f"a killed rank ends all ({time.time() - begin:.1f} s)")
check(err.count("exited on signal 9") == 1, f"one message says what happened: {err[-400:]}")
check(not (folder / "x.npy").exists(), "no result is left")

# An error on all ranks is one failure and no hang.
done = subprocess.run(mpirun("index", "search", folder / "none", "--queries", folder / "q.npy", "-o", folder / "y.npy"), env=MPI, capture_output=True, text=True, cwd=ROOT, timeout=60)
check(done.returncode != 0 and "there is no index here" in done.stderr, "an error ends all ranks", done)

# What all ranks find wrong is said once; what one finds wrong alone is said too.
for processes in (2, 3):
    for what, command, word in (("an unknown flag", [*search, "--kk", 3, "-o", folder / "y.npy"], "--kk"), ("no index", ["index", "search", folder / "none", *search[3:], "-o", folder / "y.npy"], "no index here"),
                                ("a verb of one process", ["index", "check", folder / "idx"], "one process")):  # fmt: skip
        done = subprocess.run(["mpirun", "-n", str(processes), str(LIGHTEN), *map(str, command)], env=MPI, capture_output=True, text=True, cwd=ROOT, timeout=60)
        check(done.returncode != 0 and word in done.stderr and done.stderr.count("lighten: ") == 1, f"{processes} ranks, {what}: said once", done)
shell = f'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then index={folder}/none; else index={folder}/idx; fi; exec {LIGHTEN} index search $index ' + " ".join(map(str, [*search[3:], "-o", folder / "z.npy"]))
done = subprocess.run(["mpirun", "-n", "2", "sh", "-c", shell], env=MPI, capture_output=True, text=True, cwd=ROOT, timeout=60)
check(done.returncode != 0 and done.stderr.count("lighten: ") == 1 and "no index here" in done.stderr, "an error of the second rank alone is said", done)
finish()
