#!/usr/bin/env python3
"""Holds #include lines to the floors of ARCHITECTURE.md: code includes only from floors below it, and folders of one floor do not include
each other. Also: torch stays out of the torch-free folders, and one system never includes another."""
import pathlib
import re
import sys

FLOORS = {
    "base": 1, "formats": 2, "kernels": 2, "runtime": 3, "nn": 3, "data": 3, "index": 3, "eval": 4, "features": 4,
    "train": 5, "compress": 5, "evidence": 6, "systems": 7, "catalogue": 8, "apps": 9,
}
TORCH_FREE = {"base", "formats", "kernels", "runtime", "data", "index", "evidence"}
INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]')
ROOT = pathlib.Path(__file__).resolve().parent.parent


def room(path: pathlib.PurePosixPath) -> tuple[str, ...]:
    """The room a file of lighten/ stands in: ("formats",), or ("systems", family, id)."""
    parts = path.parts[1:-1]
    return parts[:3] if parts and parts[0] == "systems" else parts[:1]


def faults_of(file: pathlib.Path) -> list[str]:
    own_path = pathlib.PurePosixPath(file.relative_to(ROOT))
    own = room(own_path)
    if not own or own[0] not in FLOORS:
        return [f"{own_path}: stands in no folder of the table"]
    faults = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        target = match.group(1)
        where = f"{own_path}:{number}"
        if target.startswith(("torch/", "ATen/", "c10/")) and own[0] in TORCH_FREE:
            faults.append(f"{where}: includes {target}, but {own[0]}/ is torch-free")
        if own[0] == "apps" and "run" == own_path.parts[2] and target.startswith(("torch/", "ATen/")):
            faults.append(f"{where}: includes {target}, but lighten-run is torch-free")
        if not target.startswith("lighten/"):
            if line.strip().startswith('#include "') and not target.endswith(".inc"):
                faults.append(f'{where}: write "{target}" as "lighten/..."')
            continue
        if not (ROOT / target).exists():
            faults.append(f"{where}: {target} does not exist")
            continue
        other = room(pathlib.PurePosixPath(target))
        if other == own:
            continue
        if FLOORS[other[0]] >= FLOORS[own[0]]:
            kind = "sideways" if FLOORS[other[0]] == FLOORS[own[0]] else "upwards"
            faults.append(f"{where}: {own[0]}/ (floor {FLOORS[own[0]]}) includes {target} (floor {FLOORS[other[0]]}): {kind}")
    return faults


def main() -> int:
    files = sorted(f for suffix in ("*.h", "*.cpp", "*.inc") for f in (ROOT / "lighten").rglob(suffix))
    faults = [fault for file in files for fault in faults_of(file)]
    print("\n".join(faults) if faults else f"floors: {len(files)} files keep to them")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
