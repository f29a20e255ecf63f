"""The command line itself: help, exit codes, nearest names, tables. Needs no model."""
import json
import subprocess

from support import BUILD, LIGHTEN, check, check_error, finish, lighten, need, scratch

need(LIGHTEN, "build lighten first")
folder = scratch()
VERBS = ["quantize", "eval", "run", "inspect", "tokenize", "bench", "systems", "data", "index", "train", "label", "distill", "reproduce", "demo"]

done = lighten("--version")
check(done.returncode == 0 and done.stdout.startswith("lighten "), "--version", done)
done = lighten()
check(done.returncode == 2 and all(verb in done.stdout for verb in VERBS), "without a command: help, exit 2", done)
for verb in VERBS:
    done = lighten(verb, "--help")
    check(done.returncode == 0 and "Examples:" in done.stdout and all(flag in done.stdout for flag in ("--json", "--seed", "--threads", "--quiet")), f"{verb} --help", done)

check_error(lighten("quantise", "x"), 2, ["unknown command 'quantise'", "did you mean 'quantize'?"], "unknown command")
check_error(lighten("eval", "x", "--agianst", "y", "--text", "z"), 2, ["--agianst", "did you mean '--against'?"], "unknown option")
check_error(lighten("quantize", "x", "--method", "aqw", "-o", folder / "o"), 2, ["unknown method 'aqw'", "did you mean 'awq'?"], "unknown method")
check_error(lighten("quantize", "x", "--method", "gptq+awq", "-o", folder / "o"), 2, ["transform stands first"], "rounding before transform")
check_error(lighten("quantize", "x", "--method", "awq", "--scal-steps", "3", "-o", folder / "o"), 2, ["did you mean '--scale-steps'?"], "unknown method option")
check_error(lighten("quantize", "x", "--method", "awq", "--scale-steps", "0", "-o", folder / "o"), 2, ["--scale-steps", "1 to"], "method option out of range")
check_error(lighten("quantize", "x", "--method", "rtn", "--bits", "5", "-o", folder / "o"), 2, ["--bits", "2, 3, 4 or 8"], "bits that do not exist")
check_error(lighten("quantize", "x", "--method", "rtn", "--group-size", "48", "-o", folder / "o"), 2, ["--group-size"], "group size that does not exist")
check_error(lighten("quantize", "--method", "rtn", "-o", folder / "o"), 2, ["MODEL"], "missing MODEL")
check_error(lighten("inspect", "smollm2-135"), 2, ["did you mean 'smollm2-135m'?"], "unknown model id")
check_error(lighten("inspect", folder / "nothing.gguf"), 1, ["nothing.gguf", "no such file"], "missing model file")
check_error(lighten("inspect", folder), 1, [str(folder)], "a folder that is no model")
check_error(lighten("data", "get", "prosa"), 2, ["did you mean 'prose'?"], "unknown data id")
check_error(lighten("data", "gte", "prose"), 2, ["did you mean 'get'?"], "unknown data action")
check_error(lighten("systems", "flatqant"), 2, ["did you mean 'flatquant'?"], "unknown system")
check_error(lighten("reproduce", "vptq", "-o", folder / "r"), 2, ["no recipe yet"], "a system without a recipe")
check_error(lighten("reproduce", "awq", "--smoke", "--full"), 2, ["--smoke", "--full"], "two sizes at once")
check_error(lighten("bench"), 2, ["MODEL", "--random"], "bench without a model")
check_error(lighten("bench", "--random", "lama-1b"), 2, ["llama-1b"], "unknown random shape")
check_error(lighten("systems", "--threads", "-1"), 2, ["--threads"], "negative threads")
check_error(lighten("systems", "--seed", "-1"), 2, ["--seed", "0 or above"], "negative seed")
check_error(lighten("quantize", "--metod", "awq", "x"), 2, ["--metod", "did you mean '--method'?"], "unknown option, and another one missing")
check_error(lighten("run", folder / "nothing", "-p", "--verbose"), 1, ["nothing"], "the value of -p is no option")
check_error(lighten("eval", "x", "--text", "prosa"), 2, ["did you mean 'prose'?"], "unknown text id")
check_error(lighten("eval", "x", "--text", folder / "no.txt"), 1, ["no.txt"], "missing text file")
check_error(lighten("eval", "x", "--text", "prose", "--engine", "torch", "--exact"), 2, ["--exact"], "--exact has no meaning for torch")
for flag, value in {"--bits": 4, "--group-size": 32}.items():
    check_error(lighten("bench", "x", flag, value), 2, [flag, "--random"], f"{flag} has no meaning for a model")
check_error(lighten("systems", "--json", folder / "no/such.json"), 1, ["no/such.json"], "a --json file that cannot be written")
check_error(lighten("inspect", "smollm2-135", "--json", folder), 1, [str(folder)], "an unwritable --json is said before the work")
check("130" in lighten("--help").stdout and "interrupted" in lighten("--help").stdout, "--help tells the exit codes")

done = lighten("quantize", "--method", "awq", "--help")
check(done.returncode == 0 and "Options of awq" in done.stdout and "--scale-steps" in done.stdout, "method options under their own heading", done)
done = lighten("quantize", "--method", "awq+gptq", "--help")
check(done.returncode == 0 and "Options of awq" in done.stdout and "Options of gptq" in done.stdout and "--damping" in done.stdout, "options of a composition", done)

rows_file = folder / "systems.json"
done = lighten("systems", "--json", rows_file)
rows = json.loads(rows_file.read_text())
check(done.returncode == 0 and len(rows) == 77 and len({row["id"] for row in rows}) == 77, "systems --json holds 77 rows")
check(all(set(row) == {"id", "title", "family", "implemented", "command", "result"} for row in rows), "their keys")
check(all(row["implemented"] == bool(row["command"]) for row in rows), "a command where and only where it is implemented")
check("awq" in done.stdout and "Baselines" in done.stdout, "the table for people", done)
done = lighten("systems", "--markdown")
check(done.returncode == 0 and done.stdout.count("\n|") >= 77, "systems --markdown", done)
detail = folder / "awq.json"
done = lighten("systems", "awq", "--json", detail)
check(done.returncode == 0 and "--scale-steps" in json.loads(detail.read_text())["options_markdown"], "systems ID --json holds the option table", done)

done = lighten("data", "list", "--json", "-", "--quiet")
check(done.returncode == 0 and "smollm2-135m" in done.stdout, "data list", done)
done = lighten("data", "show", "prose")
check(done.returncode == 0 and "perl-doc" in done.stdout, "data show", done)
cache = folder / "cache"
(cache / "text/prose").mkdir(parents=True)
for name in ("calibration.txt", "test.txt", "calibration_far.txt", "far.txt", "source.json"):
    (cache / "text/prose" / name).write_text("own text")
done = lighten("data", "get", "prose", "--path", environment={"LIGHTEN_DATA": str(cache)})
check(done.returncode == 0 and done.stdout == f"{cache}/text/prose\n" and done.stderr == "", "data get --path prints just the path", done)

if (BUILD / "lighten-run").exists():
    done = lighten("--version", program=BUILD / "lighten-run")
    check(done.returncode == 0 and done.stdout.startswith("lighten-run "), "lighten-run --version", done)
    runner = BUILD / "lighten-run"
    check_error(lighten(folder / "nothing", "-p", "x", program=runner), 1, ["nothing"], "lighten-run on a missing model")
    check_error(lighten("x", "--promt", "x", program=runner), 2, ["--promt", "did you mean '--prompt'?"], "lighten-run: unknown option")
    check_error(lighten("bench", "x", "--prefil", "3", program=runner), 2, ["--prefil", "did you mean '--prefill'?"], "lighten-run bench: unknown option")
    check_error(lighten("smollm2-135", "-p", "x", program=runner), 2, ["did you mean 'smollm2-135m'?"], "lighten-run: unknown data id")
    check_error(lighten("gemma3-270m", "-p", "x", program=runner, environment={"LIGHTEN_DATA": str(cache)}), 1, ["lighten data get gemma3-270m"], "lighten-run fetches nothing")
    check_error(lighten(folder / "nothing", "-p", "x", "--json", folder / "no/such.json", program=runner), 1, ["nothing"], "lighten-run: a model that is missing comes first")
    linked = subprocess.run(["ldd", runner], capture_output=True, text=True).stdout
    check("torch" not in linked and runner.stat().st_size < 10e6, "lighten-run links no torch and is below 10 MB")
finish()
