#!/usr/bin/env python3
"""Runs every test: the C++ test programs (ctest), tests/interop/*_interop.py (against the reference libraries) and
tests/end_to_end/*_e2e.py (the built programs as a user calls them). Prints one line each and closes with `N passed, N failed, N skipped`.
A script that exits with 77 is skipped; its last line says why. Cases of the C++ programs are counted one by one."""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(command: list[str], build: pathlib.Path) -> tuple[int, str, float]:
    start = time.time()
    environment = dict(os.environ, LIGHTEN_BUILD=str(build), PYTHONUNBUFFERED="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", OMP_WAIT_POLICY="PASSIVE")
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return done.returncode, done.stdout, time.time() - start


def unit_tests(build: pathlib.Path) -> tuple[int, int, int]:
    passed = failed = skipped = 0
    for program in sorted(build.glob("*_test")):
        code, output, seconds = run([str(program), "--gtest_brief=0"], build)
        ok = int((re.search(r"\[  PASSED  \] (\d+) test", output) or [0, 0])[1])
        skip = int((re.search(r"\[  SKIPPED \] (\d+) test", output) or [0, 0])[1])
        bad = int((re.search(r"\[  FAILED  \] (\d+) test", output) or [0, 0])[1])
        if code and not bad:
            bad = 1
        print(f"{'FAIL' if code else 'ok  '} {program.name:36} {ok:4} passed {bad:3} failed {skip:3} skipped {seconds:7.1f} s", flush=True)
        if code:
            print(output[-8000:])
        passed, failed, skipped = passed + ok, failed + bad, skipped + skip
    return passed, failed, skipped


def script_tests(folder: str, pattern: str, build: pathlib.Path, only: str) -> tuple[int, int, int]:
    passed = failed = skipped = 0
    for script in sorted((ROOT / "tests" / folder).glob(pattern)):
        if only and only not in script.name:
            continue
        code, output, seconds = run([sys.executable, str(script)], build)
        last = output.strip().splitlines()[-1] if output.strip() else ""
        word = {0: "ok  ", 77: "skip"}.get(code, "FAIL")
        print(f"{word} {folder}/{script.name:40} {seconds:7.1f} s  {last[:100]}", flush=True)
        if word == "FAIL":
            print(output[-8000:])
        passed, failed, skipped = passed + (code == 0), failed + (word == "FAIL"), skipped + (code == 77)
    return passed, failed, skipped


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build", type=pathlib.Path)
    parser.add_argument("--only", choices=["unit", "interop", "end_to_end"])
    parser.add_argument("--match", default="", help="only scripts whose name contains this")
    arguments = parser.parse_args()
    build = (ROOT / arguments.build).resolve()
    kinds = [arguments.only] if arguments.only else ["unit", "interop", "end_to_end"]
    totals = [0, 0, 0]
    start = time.time()
    for kind in kinds:
        if kind == "unit":
            counts = unit_tests(build)
        else:
            counts = script_tests(kind, "*_interop.py" if kind == "interop" else "*_e2e.py", build, arguments.match)
        totals = [a + b for a, b in zip(totals, counts)]
    print(f"all tests took {time.time() - start:.0f} s")
    print(f"{totals[0]} passed, {totals[1]} failed, {totals[2]} skipped")
    return 1 if totals[1] or not totals[0] else 0


if __name__ == "__main__":
    sys.exit(main())
