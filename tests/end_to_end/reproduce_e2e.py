"""lighten reproduce --smoke: files, keys, claims, and a report that opens anywhere."""
import html.parser
import json
import pathlib
import subprocess

from support import LIGHTEN, check, finish, lighten, need, scratch

need(LIGHTEN, "build lighten first")
known = json.loads(subprocess.run([LIGHTEN, "data", "list", "--json", "-"], capture_output=True, text=True, check=True).stdout)
for row in known:
    if row["id"] in ("smollm2-135m", "prose"):
        need(row["path"], f"`lighten data get {row['id']}` first")
folder = scratch()


class Page(html.parser.HTMLParser):
    """Nesting of tags, unique ids, no outside references."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.faults = [], set(), []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)
        for name, value in attributes:
            if name == "id" and value in self.ids:
                self.faults.append(f"id {value} twice")
            if name == "id":
                self.ids.add(value)
            if name in ("src", "href", "xlink:href"):
                self.faults.append(f"{tag} {name}={value}")

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")


done = lighten("reproduce", "awq", "--smoke", "--seed", 3, "-o", folder / "awq")
check(done.returncode == 0, "reproduce awq --smoke", done)
if done.returncode:
    finish()
result = json.loads((folder / "awq/result.json").read_text())
check(result["id"] == "awq" and result["size"] == "smoke" and result["seeds"][0] == 3, "result.json says what it is")
check(all({"values", "mean", "sd"} <= set(metric) for arm in result["arms"].values() for metric in arm.values()), "every metric has values, mean, sd")
check(all({"text", "holds", "margin"} <= set(claim) for claim in result["claims"]) and result["claims"], "every claim has text, holds, margin")
check(all(claim["holds"] == (claim["margin"] is not None and claim["margin"] > 0) for claim in result["claims"]), "a claim holds where its margin is positive")
check({"versions", "settings", "seconds", "peak_bytes", "command"} <= set(result), "versions, settings, seconds, peak memory, command")
check(all(claim["text"] in done.stdout for claim in result["claims"]), "the claims are printed")
page = Page()
text = (folder / "awq/report.html").read_text()
page.feed(text)
check(not page.faults and not page.open, f"report.html is well-formed {page.faults[:3]} {page.open[:3]}")
check("http:" not in text and "https:" not in text and "@import" not in text, "report.html needs no network")
check("prefers-color-scheme" in text and 'name="viewport"' in text, "report.html knows phones and dark mode")
check(not list(pathlib.Path(folder / "awq").glob("state-*.json")), "a finished run leaves no state file")

# Every other system: that all of it works, in seconds. Data that a recipe needs and that is not in the cache is an error that says so.
catalogue = json.loads(subprocess.run([LIGHTEN, "systems", "--json", "-"], capture_output=True, text=True, check=True).stdout)
for row in catalogue:
    if not row["implemented"] or row["id"] in ("awq", "rtn", "gptq"):
        continue
    done = lighten("reproduce", row["id"], "--smoke", "-o", folder / row["id"])
    if done.returncode == 1 and "not in the cache" in done.stderr:
        print(f"skip    {row['id']}: {done.stderr.strip().splitlines()[-1]}")
        continue
    check(done.returncode == 0, f"reproduce {row['id']} --smoke", done)
    if done.returncode == 0:
        result = json.loads((folder / row["id"] / "result.json").read_text())
        check(result["id"] == row["id"] and len(result["claims"]) > 0, f"result.json of {row['id']}")
finish()
