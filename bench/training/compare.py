#!/usr/bin/env python3
"""Training throughput of the shared nets: Lighten's loop against the same nets and steps in Python PyTorch, by turns.

  make bench-training                     builds and runs everything, writes bench/results/training-throughput.json
  bench/training/compare.py --rounds 5 --seconds 2 --nets conv3 gcn

Both sides do a whole step: they take a batch by index from bytes in memory, normalise it, run forward and backward passes and
update the weights. A round runs both sides of a net, the side that begins changes from round to round. Figures are samples
(pictures, nodes, texts) a second; the ratio is Lighten's over Python's of the same round."""
import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
NETS = ["mlp", "conv3", "resnet8", "vit", "gcn", "bert_lora"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build", help="build folder")
    parser.add_argument("--nets", nargs="+", default=NETS, choices=NETS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one measurement")
    parser.add_argument("--threads", type=int, default=0, help="0: the processors that this process may use")
    parser.add_argument("--json", default="bench/results/training-throughput.json")
    return parser.parse_args()


def ours(args, net):
    name = net if net in ("gcn", "bert_lora") else f"vision/{net}"
    done = subprocess.run([str(ROOT / args.build / "train_bench"), f"--benchmark_filter=^{name}/", "--benchmark_format=json", f"--benchmark_min_time={args.seconds}"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ, OMP_NUM_THREADS=str(args.threads)))
    if done.returncode != 0:
        sys.exit(f"train_bench --benchmark_filter={name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)["benchmarks"][0]["items_per_second"]


def theirs(args, net):
    done = subprocess.run([sys.executable, str(pathlib.Path(__file__).with_name("pytorch.py")), net, str(args.seconds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, env=dict(os.environ, OMP_NUM_THREADS=str(args.threads)))
    if done.returncode != 0:
        sys.exit(f"pytorch.py {net} failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def spread(values):
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def main():
    args = arguments()
    args.threads = args.threads or len(os.sched_getaffinity(0))
    import torch

    result = {
        "what": "samples a second of whole training steps, Lighten over Python PyTorch, by turns",
        "command": " ".join(["bench/training/compare.py", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "machine": {"processor": processor(), "threads": args.threads},
        "torch": torch.__version__,
        "goal": 0.95,
        "nets": {},
    }
    for net in args.nets:
        left, right = [], []
        for turn in range(args.rounds):
            for side in ((ours, left), (theirs, right)) if turn % 2 == 0 else ((theirs, right), (ours, left)):
                side[1].append(side[0](args, net))
        ratios = [a / b for a, b in zip(left, right)]
        result["nets"][net] = {"date": result["date"], "rounds": args.rounds, "seconds": args.seconds, "lighten": spread(left), "pytorch": spread(right), "ratio": spread(ratios)}
        print(f"{net:10} lighten {statistics.median(left):10.0f}/s   pytorch {statistics.median(right):10.0f}/s   "
              f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)  # fmt: skip
    path = pathlib.Path(args.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():  # nets that were not asked for keep their figures, if machine and torch are the same
        before = json.loads(path.read_text())
        if (before["machine"], before["torch"]) == (result["machine"], result["torch"]):
            result["nets"] = before["nets"] | result["nets"]
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(result, indent=1) + "\n")
    unfinished.replace(path)
    below = [net for net, row in result["nets"].items() if row["ratio"]["median"] < result["goal"]]
    print(f"below {result['goal']}: {', '.join(below)}" if below else f"all at {result['goal']} or above")


if __name__ == "__main__":
    start = time.time()
    main()
    print(f"{time.time() - start:.0f} s")
