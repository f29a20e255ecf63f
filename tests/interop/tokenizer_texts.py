"""The texts on which tokenizers are compared: lines in many languages and scripts, source code, hostile strings."""
import functools
import os
import pathlib
import random
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CACHE = pathlib.Path(
    os.environ.get("LIGHTEN_DATA") or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "lighten"
)
MULTILINGUAL = CACHE / "text/multilingual"

# First and last letters of 30 scripts, for the words of the fallback texts.
SCRIPTS = [
    (0x61, 0x7A), (0xC0, 0xFF), (0x100, 0x17F), (0x391, 0x3C9), (0x410, 0x44F), (0x531, 0x586), (0x5D0, 0x5EA), (0x620, 0x64A),
    (0x710, 0x72F), (0x780, 0x7A5), (0x904, 0x939), (0x985, 0x9B9), (0xA05, 0xA39), (0xA85, 0xAB9), (0xB85, 0xBB9), (0xC05, 0xC39),
    (0xD05, 0xD39), (0xE01, 0xE30), (0xE81, 0xEB0), (0xF40, 0xF6C), (0x1000, 0x102A), (0x10D0, 0x10FA), (0x1200, 0x1248), (0x1780, 0x17B3),
    (0x1820, 0x1877), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x6000), (0xAC00, 0xB000), (0x1E00, 0x1EFF),
]  # fmt: skip
LANGUAGES = "en da it fr de sk pt_BR ja ko uk pl ru es cs pt zh_CN fi sr nl sv hu".split()
LINES_PER_LANGUAGE = 8000


def fetch_multilingual():
    if any(MULTILINGUAL.glob("*.txt")):
        return
    print("fetching package descriptions in 21 languages", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        (work / "lists/partial").mkdir(parents=True)
        languages = " ".join(f'"{name}";' for name in LANGUAGES)
        config = work / "apt.conf"
        config.write_text(
            f'Dir::Etc::parts "/dev/null";\nDir::State::lists "{work}/lists";\nAPT::Sandbox::User "root";\n'
            f"Acquire::Languages {{ {languages} }};\n"
        )
        environment = dict(os.environ, APT_CONFIG=str(config), LC_ALL="C")
        subprocess.run(["apt-get", "update", "-q"], env=environment, check=True, stdout=subprocess.DEVNULL)
        made = MULTILINGUAL.with_name(f"multilingual.partial-{os.getpid()}")
        made.mkdir(parents=True)
        for language in LANGUAGES:
            lines = []
            name = language.replace("_", "%5f")  # as apt spells file names
            for path in sorted((work / "lists").glob(f"*_Translation-{name}*")):
                if path.name.split("_Translation-")[1].split(".")[0] != name:
                    continue
                text = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", str(path)], capture_output=True, check=True).stdout
                for line in text.decode("utf-8", "replace").split("\n"):
                    if line.startswith("Description-") and not line.startswith("Description-md5"):
                        lines.append(line.split(": ", 1)[-1])
                    elif line.startswith(" ") and "<trans>" not in line and line != " .":
                        lines.append(line[1:])
            lines = sorted(set(lines))
            random.Random(1).shuffle(lines)
            (made / f"{language}.txt").write_text("\n".join(lines[:LINES_PER_LANGUAGE]) + "\n")
            print(f"{language}: {min(len(lines), LINES_PER_LANGUAGE)} lines")
        made.rename(MULTILINGUAL)


def made_up_lines(count, rng):
    """Words in one or two scripts, numbers, punctuation and spaces of all sorts."""
    spaces = [" "] * 30 + ["  ", "   ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2003", "\u200b", "\u0085", "\u180e", " \n ", "\n\n"]
    marks = list(".,;:!?-'\"()[]{}<>/\\@#$%^&*_+=|~`") + ["...", "'s", "'LL", "'re", "n't", "\u2019s", "\u2014", "\u00ab", "\u3002", "\u20ac", "\u00b2", "\u00bd"]
    lines = []
    for _ in range(count):
        scripts = rng.sample(SCRIPTS, 2)
        parts = []
        for _ in range(rng.randint(1, 25)):
            kind = rng.random()
            first, last = scripts[rng.random() < 0.2]
            if kind < 0.7:
                parts.append("".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 10))))
            elif kind < 0.8:
                parts.append(str(rng.randint(0, 10 ** rng.randint(1, 12))))
            elif kind < 0.95:
                parts.append(rng.choice(marks))
            else:
                parts.append("e" + "".join(chr(rng.randint(0x300, 0x36F)) for _ in range(rng.randint(1, 5))))
            parts.append(rng.choice(spaces) if rng.random() < 0.9 else "")
        lines.append("".join(parts))
    return lines


def source_lines(count, rng):
    lines = []
    for pattern in ("lighten/**/*.cpp", "lighten/**/*.h", "tools/*.py", "tests/**/*.py", "cmake/*", "CMakeLists.txt"):
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file():
                text = path.read_text(errors="replace")
                lines += text.split("\n")
                lines.append(text[:20000])  # with its line breaks
    rng.shuffle(lines)
    return lines[:count]


def code_point_lines(rng):
    """Every code point beside letters, digits and spaces."""
    points = [chr(c) for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF and (c < 0x32000 or 0xE0000 <= c < 0xE0200 or c % 97 == 0)]
    lines = []
    for start in range(0, len(points), 64):
        block = points[start : start + 64]
        lines.append("".join(block))
        lines.append(" ".join(block))
        lines.append("".join(c + rng.choice(["a", "1", " ", "\n", ".", "'", "e\u0301", ""]) for c in block))
    return lines


def hostile_texts(rng):
    noise = rng.randbytes
    texts = [b"", b" ", b"\n", b"\0", b"a\0b\0\0c", b"\xff", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80",
             b"ab\xe2\x28\xa1cd", b"\xf0\x80\x80\xaf", b"'", b"''", b"'s", b" 's't'RE'Ll", "'\u017f '\u017fx".encode(), b"\r", b"\r\n", b" \r\n \n\r ",
             "\u2581 \u2581\u2581  \u2581x".encode(), b"<0x0A><0xff>", b"<unk></s><s>", b"  <s>  </s> x", "\ufeffx\ufffd".encode(),
             b"<|im_start|>user\nHi<|im_end|>\n<|endoftext|><|im_start", b"<start_of_turn>user\nx<end_of_turn>\n<unused1><unused12>",
             b"[CLS] [SEP][MASK] [UNK]x", "\U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f1e9\U0001f1ea".encode(), "\u1100\u1161\u11a8\uac01\u11a8".encode()]  # fmt: skip
    texts += [b" " * n for n in (2, 3, 7, 30, 31, 32, 33, 40, 62, 63, 100, 1000)] + [b"\n" * n for n in (2, 31, 32, 40, 500)]
    texts += [b"\t" * n + b"x" for n in (1, 2, 31, 40)] + [b"x" + b" " * n + b"y" for n in range(1, 70)]
    texts += [noise(rng.randint(1, 200)) for _ in range(500)]
    texts += ["".join(chr(rng.choice([rng.randint(0, 0x7F), rng.randint(0x80, 0x7FF), rng.randint(0x800, 0xD7FF), rng.randint(0xE000, 0x10FFFF)]))
                      for _ in range(rng.randint(1, 100))).encode() for _ in range(500)]  # fmt: skip
    return texts


def huge_texts(rng, size):
    letters = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(size))
    third = size // 3
    return [b"a" * size, letters.encode(), b" " * size, b"1" * third, b"!" * third, "\u0301".encode() * third, b"\0" * third,
            "\u4e2d".encode() * third, b"\xff" * third, b"ab " * third]  # fmt: skip


def real_lines(count):
    """`count` lines in as equal shares of the languages as their lengths allow."""
    files = [path.read_text().split("\n")[:-1] for path in sorted(MULTILINGUAL.glob("*.txt"))]
    found, left = [], count
    for done, lines in enumerate(sorted(files, key=len)):
        share = min(len(lines), left // (len(files) - done))
        found += lines[:share]
        left -= share
    return found, len(files)


@functools.cache
def texts(count):
    """`count` lines of real text (made up where none has been fetched), and a fifth as much of made-up words, source code and code points each."""
    rng = random.Random(7)
    found, languages = real_lines(count)
    real = len(found)
    found += made_up_lines(count - real + count // 5, rng) + source_lines(count // 5, rng)
    code_points = code_point_lines(rng)
    found += rng.sample(code_points, min(len(code_points), count // 5))
    rng.shuffle(found)
    return [line.encode() for line in found], real, languages
