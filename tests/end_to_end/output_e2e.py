"""Standard output and standard error of every verb: --json - prints JSON and nothing else, --quiet says nothing; the chat; bench."""
import json

from support import BUILD, LIGHTEN, check, finish, lighten, need, scratch, text_file, tiny_model

need(LIGHTEN, "build lighten first")
folder = scratch()
model, text, short = tiny_model(folder / "model"), text_file(folder / "text.txt"), text_file(folder / "short.txt", 50)
cache = folder / "cache"
(cache / "text/prose").mkdir(parents=True)
for name in ("calibration.txt", "test.txt", "calibration_far.txt", "far.txt", "source.json"):
    (cache / "text/prose" / name).write_text("own text")
environment = {"LIGHTEN_DATA": str(cache)}
quantize = ["quantize", model, "--method", "awq", "--bits", 4, "--group-size", 32, "--calib", text, "--calib-tokens", 2048]
speed = ["--prefill", 16, "--decode", 4, "--repeat", 1]
VERBS = {
    "quantize --dry-run": [*quantize, "-o", folder / "dry", "--dry-run"],
    "quantize": [*quantize, "-o", folder / "light"],
    "eval": ["eval", model, "--text", text, "--window", 64, "--max-tokens", 256],
    "run": ["run", model, "-p", "the model", "-n", 4],
    "inspect": ["inspect", model],
    "tokenize": ["tokenize", model, "--text", short],
    "tokenize --pieces": ["tokenize", model, "--text", short, "--pieces"],
    "bench": ["bench", model, *speed],
    "systems": ["systems"],
    "systems ID": ["systems", "awq"],
    "data list": ["data", "list"],
    "data show": ["data", "show", "prose"],
    "data get": ["data", "get", "prose"],
    "data get --path": ["data", "get", "prose", "--path"],
}


def parses(output):
    try:
        return json.loads(output) is not None
    except ValueError:
        return False


for name, arguments in VERBS.items():
    done = lighten(*arguments, "--json", "-", "--quiet", environment=environment)
    check(done.returncode == 0 and parses(done.stdout), f"{name} --json - prints JSON and nothing else", done)
    check(done.stderr == "", f"{name} --quiet prints nothing on standard error", done)
check(not any(path.name == "-" for path in folder.iterdir()), "no file is named -")
done = lighten("reproduce", "awq", "--smoke", "--json", "-", "-o", folder / "reproduce")
if done.returncode == 0:
    check(parses(done.stdout), "reproduce --json - prints JSON and nothing else", done)

odd = folder / "caf\udce9"  # a name that is no UTF-8
odd.mkdir()
tiny_model(odd / "model")
done = lighten("quantize", odd / "model", "--method", "rtn", "--bits", 4, "--group-size", 32, "-o", odd / "light", "--json", odd / "figures.json")
check(done.returncode == 0 and "caf\ufffd" in json.loads((odd / "figures.json").read_text())["output"], "a path that is no UTF-8 goes into JSON with U+FFFD", done)
done = lighten("inspect", odd / "light", "--json", "-")
check(done.returncode == 0 and parses(done.stdout), "and inspect --json", done)

runner = BUILD / "lighten-run"
for program, first in ((LIGHTEN, ["run"]), (runner, [])):
    done = lighten(*first, model, "-n", 5, "--raw", "--quiet", "--json", folder / "chat.json", program=program, stdin="the model\n\n/reset\nthe text\n/exit\nunread\n")
    turns = json.loads((folder / "chat.json").read_text())["turns"] if done.returncode == 0 else []
    check([turn["message"] for turn in turns] == ["the model", "the text"], f"{program.name}: a chat from standard input answers line by line", done)
    check(done.stdout == "".join(turn["text"] + "\n" for turn in turns) and done.stderr == "", f"{program.name}: the answers, one after the other, and nothing else", done)
    again = lighten(*first, model, "-n", 5, "--raw", "--quiet", "-p", "the text", program=program)
    check(turns and again.stdout == turns[-1]["text"] + "\n", f"{program.name}: after /reset an answer is that of a new conversation", again)

done = lighten("bench", "--random", "smollm2-135m", "--bits", 4, "--group-size", 64, *speed, "--json", folder / "b.json")
figures = json.loads((folder / "b.json").read_text()) if done.returncode == 0 else {}
check(done.returncode == 0 and 60e6 < figures["weight_bytes"] < 100e6 and figures["bits"] == 4 and figures["group_size"] == 64, "bench --random smollm2-135m: 135 million weights at 4 bits", done)
check(figures.get("decode_tokens_per_s", {}).get("min", 0) > 0 and figures.get("rss_bytes", 0) > figures.get("weight_bytes", 1), "its speeds and memory")
done = lighten("bench", folder / "light", *speed, "--json", "-", "--quiet")
other = lighten("bench", folder / "light", *speed, "--quiet", program=runner)
a, b = json.loads(done.stdout), json.loads(other.stdout)
check(list(a) == list(b), "bench and lighten-run bench give the same keys")
check(a["rss_bytes"] < 40e6, f"bench counts the model's memory, not libtorch's ({a['rss_bytes'] / 1e6:.0f} MB)")
(folder / "prompts.txt").write_text("the model\n" + "x" * 3000 + "\nthe text\n")
done = lighten(model, "--prompts", folder / "prompts.txt", "-n", 3, "--raw", program=runner)
answers = {answer["index"]: answer for answer in map(json.loads, done.stdout.splitlines())}
check(done.returncode == 1 and sorted(answers) == [0, 1, 2] and [i for i in answers if "error" in answers[i]] == [1] and "prompt 1" in done.stderr, "a prompt that does not fit is named, the others are answered", done)
remark = "no chat template"
check(remark not in done.stderr and remark in lighten(model, "-p", "the", "-n", 1, program=runner).stderr, "a model without a chat template says so, not with --raw", done)
finish()
