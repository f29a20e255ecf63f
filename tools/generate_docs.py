#!/usr/bin/env python3
"""Fills the generated parts of documents: whatever stands between `<!-- generated: WHAT -->` and `<!-- end -->`.

README.md           `systems`   the map of the 77, from `lighten systems --markdown`
a system's README   `options`   the table of its options, from `lighten systems ID --json`
                    `result`    arms and claims of the committed result.json
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.S)


def systems_map(build: pathlib.Path) -> str:
    return subprocess.run([build / "lighten", "systems", "--markdown"], capture_output=True, text=True, check=True).stdout


def options_table(build: pathlib.Path, system: str) -> str:
    out = build / "generated-options.json"
    subprocess.run([build / "lighten", "systems", system, "--json", out], capture_output=True, check=True)
    return json.loads(out.read_text()).get("options_markdown", "")


def result_tables(result: dict) -> str:
    arms = result["arms"]
    metrics = list(dict.fromkeys(m for arm in arms.values() for m in arm))
    lines = ["| arm | " + " | ".join(metrics) + " |", "|---|" + "---:|" * len(metrics)]
    for name, values in arms.items():
        cells = []
        for metric in metrics:
            value = values.get(metric)
            spread = f" ± {value['sd']:.2g}" if value and len(value["values"]) > 1 and value["sd"] else ""
            cells.append(f"{value['mean']:.4g}{spread}" if value else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| claim | holds | margin |", "|---|---|---:|"]
    lines += [f"| {c['text']} | {'yes' if c['holds'] else 'no'} | {100 * c['margin']:+.1f} % |" for c in result["claims"]]
    seeds = ", ".join(str(s) for s in result.get("seeds", []))
    return "\n".join(lines) + f"\n\nMean ± standard deviation over seeds {seeds}; `{result.get('command', '')}`.\n"


def fill(document: pathlib.Path, build: pathlib.Path) -> None:
    text = document.read_text()

    def replace(match: re.Match) -> str:
        what = match.group(2)
        if what == "systems":
            body = systems_map(build)
        elif what == "options":
            body = options_table(build, document.parent.name.replace("_", "-"))
        elif what == "result":
            result = document.parent / "result.json"
            body = result_tables(json.loads(result.read_text())) if result.exists() else "No full run is committed yet.\n"
        else:
            raise SystemExit(f"{document}: nothing generates '{what}'")
        return match.group(1) + body + match.group(3)

    new = BLOCK.sub(replace, text)
    if new != text:
        document.write_text(new)
        print(f"updated {document.relative_to(ROOT)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build", type=pathlib.Path)
    build = (ROOT / parser.parse_args().build).resolve()
    for document in [ROOT / "README.md", *sorted((ROOT / "lighten" / "systems").rglob("README.md"))]:
        fill(document, build)
    return 0


if __name__ == "__main__":
    sys.exit(main())
