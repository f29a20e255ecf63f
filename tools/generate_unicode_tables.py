#!/usr/bin/env python3
"""Writes lighten/formats/unicode_tables.inc: what Unicode means to the reference tokenizers.

    .venv/bin/python tools/generate_unicode_tables.py            (about two minutes)

The reference (Hugging Face `tokenizers`) mixes several Unicode versions: one in its regular expressions, an older one in its
normalizers, a third one in punctuation. Token ids must be equal, so each table is measured: every code point is shown to the
reference and its answer is written down. Combining classes and composition pairs, which cannot be seen one code point at a time,
come from Python's unicodedata and are kept only where the reference acts on them.
"""
import pathlib
import unicodedata

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
ALL_TEXT = "".join(map(chr, CODE_POINTS))
HANGUL = range(0xAC00, 0xAC00 + 11172)
OUTPUT = pathlib.Path(__file__).resolve().parent.parent / "lighten/formats/unicode_tables.inc"


def matched(pattern):
    """Code points that a regular expression of the reference matches."""
    return removed_by(pre_tokenizers.Split(Regex(pattern), "removed"))


def removed_by(pre_tokenizer):
    left = set()
    for piece, _ in pre_tokenizer.pre_tokenize_str(ALL_TEXT):
        left.update(map(ord, piece))
    return set(CODE_POINTS) - left


def erased_by(normalizer):
    return {c for c in CODE_POINTS if normalizer.normalize_str(chr(c)) == ""}


def word_characters():
    splitter = pre_tokenizers.Whitespace()
    return {c for c in CODE_POINTS if len(splitter.pre_tokenize_str("a" + chr(c) + "a")) == 1}


def digits():
    splitter = pre_tokenizers.Digits(individual_digits=True)
    return {c for c in CODE_POINTS if len(splitter.pre_tokenize_str("a" + chr(c) + "a")) == 3}


def bert(**on):
    options = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    return normalizers.BertNormalizer(**{**options, **on})


def numbers(values, width=126):
    lines, line = [], ""
    for value in values:
        text = f"{value}," if value < 10 else f"{value:#x},"
        if len(line) + len(text) > width:
            lines.append(line)
            line = ""
        line += text
    return "\n".join(lines + [line]) if line else "\n".join(lines)


def array(type_name, name, values):
    values = list(values)
    return f"constexpr {type_name} {name}[{len(values)}] = {{\n{numbers(values)}}};\n"


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def class_tables():
    flags = [matched(r"\p{L}"), matched(r"\p{N}"), matched(r"\s"), word_characters(),
             removed_by(pre_tokenizers.Punctuation("removed")), digits(), erased_by(normalizers.StripAccents()),
             erased_by(bert(strip_accents=True)), erased_by(bert(clean_text=True))]
    assert removed_by(pre_tokenizers.WhitespaceSplit()) == flags[2]
    value = [0] * 0x110000
    for bit, points in enumerate(flags):
        for c in points:
            value[c] |= 1 << bit
    combinations = sorted(set(value))
    index = {v: i for i, v in enumerate(combinations)}
    blocks, stage1, stage2 = {}, [], []
    for start in range(0, 0x110000, 128):
        block = tuple(index[v] for v in value[start:start + 128])
        if block not in blocks:
            blocks[block] = len(blocks)
            stage2.extend(block)
        stage1.append(blocks[block])
    kind = "uint8_t" if len(blocks) < 256 else "uint16_t"
    return array("uint16_t", "kClassFlags", combinations) + array(kind, "kClassBlock", stage1) + array("uint8_t", "kClassOf", stage2)


def newer_categories():
    """Code points that the reference's regular expressions know and Unicode 14 does not, by general category."""
    names = ["Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc",
             "Sk", "So", "Zs", "Zl", "Zp", "Cf"]
    rows = []
    for name in names:
        new = {c for c in matched(r"\p{%s}" % name) if unicodedata.category(chr(c)) == "Cn"}
        rows += [(first, last, name) for first, last in ranges(new)]
    text = "".join(f'{{{first:#x},{last:#x},"{name}"}},\n' for first, last, name in sorted(rows))
    return f"constexpr NewerCategory kNewerCategories[{len(rows)}] = {{\n{text}}};\n"


def lowercase_table():
    lower = normalizers.Lowercase()
    pairs = [(c, lower.normalize_str(chr(c))) for c in CODE_POINTS]
    pairs = [(c, to) for c, to in pairs if to != chr(c)]
    assert [c for c, to in pairs if len(to) != 1] == [0x130]  # the one that becomes two characters; unicode.cpp knows it
    pairs = [(c, ord(to)) for c, to in pairs if c != 0x130]
    return array("uint32_t", "kLowerFrom", (c for c, _ in pairs)) + array("uint32_t", "kLowerTo", (to for _, to in pairs))


def decomposition_tables():
    nfd, nfkd, nfc = normalizers.NFD(), normalizers.NFKD(), normalizers.NFC()
    canonical = {c: nfd.normalize_str(chr(c)) for c in CODE_POINTS if c not in HANGUL}
    canonical = {c: to for c, to in canonical.items() if to != chr(c)}
    compatible = {c: nfkd.normalize_str(chr(c)) for c in CODE_POINTS if c not in HANGUL}
    compatible = {c: to for c, to in compatible.items() if to != canonical.get(c, chr(c))}
    pool, text = [], ""
    for name, table in (("Canonical", canonical), ("Compatible", compatible)):
        starts = []
        for c in sorted(table):
            starts.append(len(pool))
            pool += map(ord, table[c])
        text += array("uint32_t", f"k{name}From", sorted(table)) + array("uint16_t", f"k{name}Start", starts + [len(pool)])
    text += array("uint32_t", "kDecomposed", pool)

    composed = []
    for c in canonical:
        if nfc.normalize_str(canonical[c]) == chr(c):
            first, second = (int(x, 16) for x in unicodedata.decomposition(chr(c)).split())
            composed.append((first, second, c))
    composed.sort()
    for part, name in enumerate(("kComposeFirst", "kComposeSecond", "kComposed")):
        text += array("uint32_t", name, (row[part] for row in composed))

    late = chr(0x345)  # class 240, the highest: whatever has a lower class moves before it
    classes = {0x345: 240}
    for c in CODE_POINTS:
        if c not in canonical and c not in HANGUL and c != 0x345 and nfd.normalize_str(late + chr(c))[-1] == late:
            classes[c] = unicodedata.combining(chr(c))
            assert classes[c] > 0
    rows = []
    for first, last in ranges(classes):
        for c in range(first, last + 1):
            if rows and rows[-1][1] == c - 1 and rows[-1][2] == classes[c]:
                rows[-1][1] = c
            else:
                rows.append([c, c, classes[c]])
    for part, name in enumerate(("kCombiningFirst", "kCombiningLast", "kCombiningClass")):
        text += array("uint32_t" if part < 2 else "uint8_t", name, (row[part] for row in rows))
    return text


def main():
    text = f"""// Written by tools/generate_unicode_tables.py against tokenizers {tokenizers.__version__} and unicodedata \
{unicodedata.unidata_version}; do not edit.
// clang-format off
"""
    text += class_tables() + newer_categories() + lowercase_table() + decomposition_tables()
    OUTPUT.write_text(text + "// clang-format on\n")
    print(f"{OUTPUT}: {len(text)} bytes")


if __name__ == "__main__":
    main()
