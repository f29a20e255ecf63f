#!/usr/bin/env python3
"""clang-format on every C++ file, clang-tidy on the torch-free ones (libtorch's headers take too long), Python files compile,
and files stay readable (no C++ file above 500 lines). Prints what to do; exits 1 on the first kind that fails."""
import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TORCH_FREE = ("base", "formats", "kernels", "runtime", "data", "evidence")
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


def tidy_one(file: str, build: pathlib.Path, cache: pathlib.Path) -> tuple[str, str]:
    """Clean results are remembered by the hash of the file, all headers and the settings."""
    digest = hashlib.sha256((ROOT / file).read_bytes())
    for other in sorted(tracked("lighten/*.h")) + [".clang-tidy"]:
        digest.update((ROOT / other).read_bytes())
    mark = cache / digest.hexdigest()
    if mark.exists():
        return file, ""
    run = subprocess.run(["clang-tidy", "--quiet", "-p", str(build), file], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        return file, run.stdout + run.stderr[-2000:]
    mark.touch()
    return file, ""


def check_tidy(build: pathlib.Path) -> bool:
    commands = json.loads((build / "compile_commands.json").read_text())
    folders = tuple(f"lighten/{name}/" for name in TORCH_FREE) + ("lighten/apps/run/",)
    known = {os.path.relpath(c["file"], ROOT) for c in commands}
    files = sorted(f for f in known if f.startswith(folders) and not f.endswith(("_test.cpp", "_bench.cpp")))
    cache = ROOT / ".cache" / "tidy"
    cache.mkdir(parents=True, exist_ok=True)
    ok = True
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for file, output in pool.map(lambda f: tidy_one(f, build, cache), files):
            if output:
                print(f"--- {file}\n{output}")
                ok = False
    if ok:
        print(f"tidy: {len(files)} torch-free files are clean")
    return ok


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build", type=pathlib.Path)
    parser.add_argument("--tidy", action="store_true", help="clang-tidy too (minutes)")
    arguments = parser.parse_args()
    results = [check_format(), check_length(), check_python()]
    if arguments.tidy:
        results.append(check_tidy((ROOT / arguments.build).resolve()))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
