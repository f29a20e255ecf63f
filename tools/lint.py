#!/usr/bin/env python3
"""clang-format on every C++ file, clang-tidy on the torch-free ones (libtorch's headers take too long), Python files compile,
and files stay readable (no C++ file above 500 lines). Prints what to do; exits 1 if anything fails."""
import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TORCH_FREE = ("base", "formats", "kernels", "runtime", "data", "index", "evidence")
LONGEST = 500


def tracked(*patterns: str) -> list[str]:
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in out.stdout.splitlines() if (ROOT / line).exists()]


def check_format() -> bool:
    files = tracked("*.cpp", "*.h")
    run = subprocess.run(["clang-format", "--dry-run", "-Werror", *files], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        print(run.stderr[:4000] + "\nformat: run `make format`")
        return False
    print(f"format: {len(files)} files are formatted")
    return True


def check_length() -> bool:
    long = [(f, n) for f in tracked("*.cpp", "*.h") if (n := len((ROOT / f).read_text().splitlines())) > LONGEST]
    for file, lines in long:
        print(f"length: {file} has {lines} lines (at most {LONGEST}): split it by its steps")
    return not long


def check_python() -> bool:
    ok = True
    for file in tracked("*.py"):
        try:
            compile((ROOT / file).read_text(), file, "exec")
        except SyntaxError as error:
            print(f"python: {file}: {error}")
            ok = False
    return ok


def with_headers(files: list[str]) -> list[str]:
    """These files and all of Lighten's own that they include, however deep."""
    found, waiting = set(), list(files)
    while waiting:
        file = waiting.pop()
        if file in found or not (ROOT / file).exists():
            continue
        found.add(file)
        waiting += re.findall(r'^\s*#\s*include\s+"(lighten/[^"]+)"', (ROOT / file).read_text(), re.MULTILINE)
    return sorted(found)


def tidy_one(command: dict, build: pathlib.Path, cache: pathlib.Path, settings: bytes) -> tuple[str, str]:
    """Clean results are remembered by the hash of what can change them: the file, our headers that it includes, how it is compiled,
    and the settings."""
    file = os.path.relpath(command["file"], ROOT)
    digest = hashlib.sha256(settings + command["command"].encode())
    for part in with_headers([file]):
        digest.update(f"\0{part}\0".encode() + (ROOT / part).read_bytes())
    mark = cache / digest.hexdigest()
    if mark.exists():
        return file, ""
    run = subprocess.run(["clang-tidy", "--quiet", "-p", str(build), file], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        return file, run.stdout + run.stderr[-2000:]
    mark.touch()
    return file, ""


def check_tidy(build: pathlib.Path) -> bool:
    folders = tuple(f"lighten/{name}/" for name in TORCH_FREE) + ("lighten/apps/run/",)
    commands = {}
    for command in json.loads((build / "compile_commands.json").read_text()):
        file = os.path.relpath(command["file"], ROOT)
        if file.startswith(folders) and not file.endswith(("_test.cpp", "_bench.cpp")):
            commands[file] = command
    version = subprocess.run(["clang-tidy", "--version"], capture_output=True, check=True).stdout
    settings = version + (ROOT / ".clang-tidy").read_bytes()
    cache = ROOT / ".cache" / "tidy"
    cache.mkdir(parents=True, exist_ok=True)
    start = time.time()
    ok = True
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for file, output in pool.map(lambda f: tidy_one(commands[f], build, cache, settings), sorted(commands)):
            if output:
                print(f"--- {file}\n{output}", flush=True)
                ok = False
    if ok:
        print(f"tidy: {len(commands)} torch-free files are clean ({time.time() - start:.0f} s)")
    return ok


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build", type=pathlib.Path)
    arguments = parser.parse_args()
    results = [check_format(), check_length(), check_python(), check_tidy((ROOT / arguments.build).resolve())]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
