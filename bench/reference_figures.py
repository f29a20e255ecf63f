#!/usr/bin/env python3
"""Quality of SmolLM2-135M beside the figures that an independent implementation reached with the same settings: every linear quantized in
groups of 64 with an integer zero point, embedding and head in floats, 64 x 512 calibration tokens, first 16 windows of each text.

  bench/reference_figures.py --texts FOLDER     FOLDER holds calib_linux.txt, perl.txt and pg.txt
  bench/reference_figures.py --texts FOLDER --only gptq-3,awq-3 --json bench/results/reference_figures.json

Figures kept in --json from earlier runs stay; a method is measured again only when it is named in --only or missing."""
import argparse
import datetime
import json
import pathlib
import platform
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXTS = ("perl", "pg")
FLOAT = {"perl": 18.867, "pg": 17.551}
REFERENCE = {  # perplexity on perl, pg
    "rtn-4": (23.75, 21.96), "rtn-3": (53.2, 50.7), "gptq-4": (20.81, 19.08), "gptq-3": (31.05, 27.29), "awq-4": (20.90, 19.44), "awq-3": (33.18, 29.56),
}


def processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def measure(lighten: pathlib.Path, name: str, texts: pathlib.Path, scratch: pathlib.Path) -> dict:
    method, bits = name.rsplit("-", 1)
    out = scratch / name
    command = [lighten, "quantize", "smollm2-135m", "--method", method, "--bits", bits, "--group-size", "64", "-o", out, "--json", scratch / "q.json", "--quiet"]
    if method != "rtn":
        command += ["--calib", texts / "calib_linux.txt"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    quantized = json.loads((scratch / "q.json").read_text())
    figures = {"seconds": round(quantized["seconds"], 1), "peak_bytes": quantized["peak_bytes"]}
    for text in TEXTS:
        subprocess.run([lighten, "eval", out, "--text", texts / f"{text}.txt", "--max-tokens", str(16 * 512), "--json", scratch / "e.json", "--quiet"],
                       check=True, stdout=subprocess.DEVNULL)
        figures[text] = json.loads((scratch / "e.json").read_text())["perplexity"]
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=pathlib.Path, required=True)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--only", default="", help="comma-separated names")
    parser.add_argument("--json", type=pathlib.Path, default=ROOT / "bench/results/reference_figures.json")
    arguments = parser.parse_args()
    result = json.loads(arguments.json.read_text()) if arguments.json.exists() else {"figures": {}}
    wanted = arguments.only.split(",") if arguments.only else [name for name in REFERENCE if name not in result["figures"]]
    with tempfile.TemporaryDirectory(prefix="lighten-bench-") as scratch:
        for name in wanted:
            print(f"measuring {name}", file=sys.stderr, flush=True)
            result["figures"][name] = measure(arguments.build / "lighten", name, arguments.texts.resolve(), pathlib.Path(scratch))
            result.update(date=datetime.date.today().isoformat(), processor=processor(), command="bench/reference_figures.py --texts FOLDER", reference=REFERENCE)
            arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{'':8} " + " ".join(f"{text:>9} {'reference':>9} {'ratio':>6} {'to float':>8}" for text in TEXTS) + f" {'seconds':>8}")
    for name, figures in sorted(result["figures"].items()):
        cells = [f"{figures[t]:9.2f} {r:9.2f} {figures[t] / r:6.3f} {100 * (figures[t] / FLOAT[t] - 1):+7.1f}%" for t, r in zip(TEXTS, REFERENCE[name])]
        print(f"{name:8} " + " ".join(cells) + f" {figures['seconds']:8.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
