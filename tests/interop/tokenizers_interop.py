"""Lighten's tokenizers against `tokenizers` (and `sentencepiece` for Gemma): every id equal on every line.

    tokenizers_interop.py            5,000 lines of text, source code and hostile texts, for every `make test`
    tokenizers_interop.py --full     100,000 lines of text, every code point, texts of a megabyte without a space (`make interop-full`)
    tokenizers_interop.py --fetch    only fetch package descriptions in 21 languages (apt, 28 MB) into the cache, where that was not done yet

Lines of text come from <cache>/text/multilingual/*.txt, beside them words made up in 30 scripts (all of them where nothing has been
fetched); source code is the project's own. Only --fetch uses the network. Vocabularies that no package brings (GPT-2, Llama 3, Qwen 2,
Llama 2) are trained here with exactly their normalizers, pre-tokenizers and decoders. LIGHTEN_BUILD names the build folder (default: build).
"""
import argparse
import json
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata

os.environ["TOKENIZERS_PARALLELISM"] = "true"
from gguf import GGUFReader
from sentencepiece import SentencePieceProcessor
from sentencepiece import sentencepiece_model_pb2 as sentencepiece_model
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.tokenization_utils_base import generate_merges

from tokenizer_texts import CACHE, code_point_lines, fetch_multilingual, hostile_texts, huge_texts, texts

BUILD = pathlib.Path(os.environ.get("LIGHTEN_BUILD", "build"))
SMOLLM2 = CACHE / "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf"
GEMMA3 = CACHE / "models/gemma3-270m/gemma-3-270m-q4_k_m.gguf"
MINILM = CACHE / "models/minilm-l6/tokenizer.json"

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

failures = []


# --- the two sides -------------------------------------------------------------------------------------------------------------


def check(name, ok, detail=""):
    print(f"{'ok    ' if ok else 'FAILED'}  {name} {detail}", flush=True)
    if not ok:
        failures.append(name)


def write_texts(path, values):
    path.write_bytes(b"".join(struct.pack("<I", len(v)) + v for v in values))


def read_ids(path):
    data, at, out = path.read_bytes(), 0, []
    while at < len(data):
        (count,) = struct.unpack_from("<I", data, at)
        out.append(list(struct.unpack_from(f"<{count}i", data, at + 4)))
        at += 4 + 4 * count
    return out


def read_texts(path):
    data, at, out = path.read_bytes(), 0, []
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        out.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return out


class Session:
    """Cases are collected, run by one call of the C++ program, then compared."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.cases, self.compare, self.files = [], [], {}

    def texts_file(self, values):
        if id(values) not in self.files:
            path = self.folder / f"texts{len(self.files)}"
            write_texts(path, values)
            self.files[id(values)] = (path, values)
        return self.files[id(values)][0]

    def add(self, name, tokenizer, values, reference, decode=True, json_to=None):
        """`tokenizer`: a path, or a reference tokenizer to be saved; `reference`: texts -> lists of ids."""
        number = len(self.cases)
        if not isinstance(tokenizer, pathlib.Path):
            path = self.folder / f"tokenizer{number}.json"
            path.write_text(tokenizer.to_str())
        else:
            path = tokenizer
        ids, decoded = self.folder / f"ids{number}", self.folder / f"decoded{number}"
        case = {"name": name, "tokenizer": str(path), "texts": str(self.texts_file(values)), "ids": str(ids), "decoded": str(decoded)}
        if json_to:
            case["json"] = str(json_to)
        self.cases.append(case)
        self.compare.append((name, values, reference, ids, decoded if decode else None))

    def run(self):
        file = self.folder / "cases.json"
        file.write_text(json.dumps(self.cases))
        done = run_cpp("WritesIdsOfEveryCase", LIGHTEN_TOKENIZER_CASES=str(file))
        print("\n".join("        " + line for line in done.stdout.splitlines() if "MB/s" in line))
        check("C++ side runs", done.returncode == 0 and "SKIPPED" not in done.stdout)
        if done.returncode != 0:
            print(done.stdout[-3000:], done.stderr[-2000:])
            return
        for name, values, reference, ids, decoded in self.compare:
            compare(name, values, reference, read_ids(ids), read_texts(decoded) if decoded else None)
        self.cases, self.compare = [], []


def check_chat_templates(folder):
    """What transformers writes with SmolLM2's template, and with one that spells its line breaks as escapes."""
    escaped = (
        "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}{%- else %}"
        "{{- '<|im_start|>system\\nYou\\'re Test.<|im_end|>\\n' }}{%- endif %}{%- for message in messages %}"
        "{%- if not (loop.first and message['role'] == 'system') %}{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
        "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
    )
    templates = {"escaped": escaped}
    if SMOLLM2.exists():
        templates["SmolLM2"] = GGUFReader(SMOLLM2).fields["tokenizer.chat_template"].contents()
    user, answer = {"role": "user", "content": " What's\n2+2? \u00e9\n"}, {"role": "assistant", "content": "4"}
    talks = [[user], [user, answer, user], [{"role": "system", "content": "Be brief."}, user], [user, answer]]
    cases, expected = [], []
    for template in templates.values():
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), chat_template=template)
        for talk in talks:
            for prompt in (True, False):
                cases.append({"template": template, "messages": talk, "prompt": prompt})
                expected.append(tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=prompt))
    file, out = folder / "chat.json", folder / "rendered.json"
    file.write_text(json.dumps({"cases": cases, "out": str(out)}))
    done = run_cpp("RendersChats", LIGHTEN_CHAT_CASES=str(file))
    check(f"chat templates ({', '.join(templates)})", done.returncode == 0 and json.loads(out.read_text()) == expected, f"{len(cases)} talks")


def run_cpp(test, **environment):
    command = [str(BUILD / "formats_test"), f"--gtest_filter=TokenizerInterop.{test}"]
    return subprocess.run(command, env=dict(os.environ, **environment), capture_output=True, text=True)


def compare(name, values, reference, ours, decoded):
    start = time.time()
    strings = [v.decode("utf-8", "replace") for v in values]
    theirs = reference(strings)
    seconds = time.time() - start
    wrong = [i for i in range(len(values)) if theirs[i] is not None and theirs[i] != ours[i]]
    compared = sum(t is not None for t in theirs)
    size = sum(map(len, values)) / 1e6
    detail = f"{compared} texts, {sum(map(len, ours))} ids, {size:.1f} MB; reference {size / seconds:.1f} MB/s"
    for i in wrong[:5]:
        at = next((k for k, (a, b) in enumerate(zip(ours[i], theirs[i])) if a != b), min(len(ours[i]), len(theirs[i])))
        print(f"        {len(wrong)} differ, first {strings[i][:100]!r} at {at}: {ours[i][at:at + 12]} should be {theirs[i][at:at + 12]}")
    bad = []
    if decoded is not None and hasattr(reference, "tokenizer"):
        detail += "; decoded text too"
        expected = reference.tokenizer.decode_batch(ours, skip_special_tokens=False)
        bad = [i for i in range(len(values)) if expected[i].encode() != decoded[i]]
    check(name, not wrong and not bad, detail)
    for i in bad[:3]:
        print(f"        {len(bad)} differ, first {decoded[i][:100]!r} should be {expected[i][:100].encode()!r}")


class By:
    """Ids by a `tokenizers` tokenizer, no special tokens added."""

    def __init__(self, tokenizer):
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self.tokenizer = tokenizer

    def __call__(self, strings):
        return [e.ids for e in self.tokenizer.encode_batch_fast(strings, add_special_tokens=False)]


# --- reference tokenizers ------------------------------------------------------------------------------------------------------


def byte_level_bpe(corpus, pre_tokenizer, normalizer=None, specials=("<|endoftext|>",), size=3000, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(specials), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def with_model(tokenizer, **fields):
    data = json.loads(tokenizer.to_str())
    data["model"].update(fields)
    return Tokenizer.from_str(json.dumps(data))


def llama2_style(corpus):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")  # for training only: words stay apart
    tokenizer.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=3000, show_progress=False, limit_alphabet=300, special_tokens=["<unk>", "<s>", "</s>"])
    )
    data = json.loads(tokenizer.to_str())
    vocab = data["model"]["vocab"]
    for byte in range(256):
        vocab.setdefault(f"<0x{byte:02X}>", len(vocab))
    data["model"].update(unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    data["pre_tokenizer"] = None
    data["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}  # fmt: skip
    return Tokenizer.from_str(json.dumps(data))


def gguf_fields(path):
    reader = GGUFReader(path)
    return {key: field.contents() for key, field in reader.fields.items() if key.startswith("tokenizer.")}


def smollm2_reference():
    """What SmolLM2's own tokenizer.json holds; transformers' GGUF converter leaves out Digits."""
    fields = gguf_fields(SMOLLM2)
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    types = fields["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, kind in zip(tokens, types) if kind == 3])
    return tokenizer


def respelled(tokens):
    return ["\u2581" * len(t) if t and not t.strip(" ") else t for t in tokens]


def gemma_sentencepiece(fields):
    """The SentencePiece model that the GGUF was made from."""
    proto = sentencepiece_model.ModelProto()
    proto.trainer_spec.model_type = 2
    proto.trainer_spec.byte_fallback = True
    proto.trainer_spec.unk_id, proto.trainer_spec.bos_id, proto.trainer_spec.eos_id, proto.trainer_spec.pad_id = 3, 2, 1, 0
    proto.trainer_spec.unk_piece, proto.trainer_spec.bos_piece, proto.trainer_spec.eos_piece, proto.trainer_spec.pad_piece = "<unk>", "<bos>", "<eos>", "<pad>"
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = False
    proto.normalizer_spec.remove_extra_whitespaces = False
    kinds = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6}
    tokens = respelled(fields["tokenizer.ggml.tokens"])
    for i, (token, score, kind) in enumerate(zip(tokens, fields["tokenizer.ggml.scores"], fields["tokenizer.ggml.token_type"])):
        proto.pieces.add(piece=token, score=score, type=2 if i == 3 else kinds[kind])
    return SentencePieceProcessor(model_proto=proto.SerializeToString())


def gemma_control(fields):
    control = [t for t, kind in zip(fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]) if kind == 3]
    return re.compile("|".join(map(re.escape, sorted(control, key=len, reverse=True))))


def by_sentencepiece(processor, control):
    def encode(strings):  # control tokens are not SentencePiece's business, and a NUL ends its text
        plain = [i for i, s in enumerate(strings) if not control.search(s) and "\0" not in s]
        out = [None] * len(strings)
        for i, ids in zip(plain, processor.encode([strings[i] for i in plain])):
            out[i] = ids
        return out

    return encode


def gemma_reference(fields):
    """`tokenizers` with the merges that transformers derives from the scores; runs of spaces match before merging."""
    tokens, kinds = respelled(fields["tokenizer.ggml.tokens"]), fields["tokenizer.ggml.token_type"]
    vocab = {t: i for i, t in enumerate(tokens)}
    skip = {t for t, kind in zip(tokens, kinds) if kind != 1}
    merges = generate_merges(vocab, dict(zip(tokens, fields["tokenizer.ggml.scores"])), skip_tokens=skip)
    tokenizer = Tokenizer(models.BPE(vocab, merges, fuse_unk=True, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, kind in zip(tokens, kinds) if kind == 3])
    tokenizer.add_tokens([AddedToken(t, normalized="\u2581" in t) for t, kind in zip(tokens, kinds) if kind == 4])
    return tokenizer


def pipelines(corpus):
    """One small tokenizer for each component and setting; ByteLevel at the end so that ids tell where words were cut."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def pre(*steps):
        return pre_tokenizers.Sequence([*steps, byte_level])

    base = byte_level_bpe(corpus, byte_level, size=1500)

    def variant(pre_tokenizer=byte_level, normalizer=None, added=()):
        tokenizer = Tokenizer.from_str(base.to_str())
        tokenizer.pre_tokenizer = pre_tokenizer
        if normalizer:
            tokenizer.normalizer = normalizer
        tokenizer.add_tokens(list(added))
        return tokenizer

    behaviours = ["removed", "isolated", "contiguous", "merged_with_previous", "merged_with_next"]
    for behaviour in behaviours:
        for invert in (False, True):
            yield f"Split {behaviour} {invert}", variant(pre(pre_tokenizers.Split(Regex(r"\w+|[\s,]"), behaviour, invert)))
            yield f"Split text {behaviour} {invert}", variant(pre(pre_tokenizers.Split("e", behaviour, invert)))
        yield f"Punctuation {behaviour}", variant(pre(pre_tokenizers.Punctuation(behaviour)))
    for scheme in ("always", "first", "never"):
        for split in (True, False):
            yield f"Metaspace {scheme} {split}", variant(pre(pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)))
    for name, step in {
        "Digits": pre_tokenizers.Digits(False), "single Digits": pre_tokenizers.Digits(True), "Whitespace": pre_tokenizers.Whitespace(),
        "WhitespaceSplit": pre_tokenizers.WhitespaceSplit(), "Bert": pre_tokenizers.BertPreTokenizer(),
        r"\d\D\S\W\h": pre_tokenizers.Split(Regex(r"\d+\D|\h|\S\W|[\d\S]x|^a|b$|[^\w]"), "isolated"),
        "categories": pre_tokenizers.Split(Regex(r"\p{Lu}|\p{M}+|[\p{P}\p{S}]+|\P{L}|[^\p{L}\p{Z}]"), "isolated"),
        "empty matches": pre_tokenizers.Split(Regex(r"x*"), "isolated"), "GPT-4o": pre_tokenizers.Split(Regex(GPT4O), "isolated"),
    }.items():  # fmt: skip
        yield name, variant(pre(step))
    yield "ByteLevel, prefix, words", variant(pre_tokenizers.ByteLevel(add_prefix_space=True))
    yield "ByteLevel before Digits", variant(pre_tokenizers.Sequence([pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.Digits(True)]))
    bert = [dict(clean_text=a, handle_chinese_chars=b, strip_accents=c, lowercase=d) for a, b, c, d in
            [(True, True, None, True), (True, False, False, True), (False, True, True, False), (True, True, True, True)]]  # fmt: skip
    for name, step in {
        "NFC": normalizers.NFC(), "NFD": normalizers.NFD(), "NFKC": normalizers.NFKC(), "NFKD": normalizers.NFKD(), "Lowercase": normalizers.Lowercase(),
        "StripAccents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]), "Strip": normalizers.Strip(),
        "Strip left": normalizers.Strip(right=False), "Replace": normalizers.Replace(Regex(r"[aeiou]+|\s\s"), "_"), "Prepend": normalizers.Prepend("x "),
        **{f"BertNormalizer {list(o.values())}": normalizers.BertNormalizer(**o) for o in bert},
    }.items():  # fmt: skip
        yield name, variant(normalizer=step)
    tokens = [AddedToken("the", single_word=True), AddedToken("of", lstrip=True), AddedToken("and", rstrip=True), AddedToken("AN", normalized=True),
              AddedToken("  ", normalized=False), AddedToken("\u00e9", lstrip=True, rstrip=True), AddedToken("in", single_word=True, lstrip=True, rstrip=True)]  # fmt: skip
    yield "added tokens", variant(pre_tokenizers.ByteLevel(add_prefix_space=False), added=tokens)
    yield "added tokens, lower case", variant(pre_tokenizers.ByteLevel(add_prefix_space=True), normalizers.Lowercase(), tokens)
    yield "unknown characters", with_model(variant(pre_tokenizers.WhitespaceSplit()), unk_token="<|endoftext|>", fuse_unk=True)
    yield "unknown characters apart", with_model(variant(pre_tokenizers.WhitespaceSplit()), unk_token="<|endoftext|>")
    clip = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>", continuing_subword_prefix="##"))
    clip.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=["<unk>"], end_of_word_suffix="</w>", continuing_subword_prefix="##", show_progress=False)
    clip.train_from_iterator(corpus, trainer)
    yield "prefix and suffix", clip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--fetch", action="store_true")
    arguments = parser.parse_args()
    if arguments.fetch:
        fetch_multilingual()
        return 0
    lines, real, languages = texts(100_000 if arguments.full else 5_000)
    rng = random.Random(3)
    every = lines + hostile_texts(rng)
    if arguments.full:
        every += code_point_texts()
    huge = huge_texts(rng, 1_000_000 if arguments.full else 100_000)
    print(f"{len(lines)} lines, {real} of them real text in {languages} languages, {sum(map(len, lines)) / 1e6:.1f} MB; {len(every) - len(lines)} hostile texts, {len(huge)} huge ones; "
          f"unicodedata {unicodedata.unidata_version}")  # fmt: skip
    corpus = [line.decode() for line in lines[:10_000]]
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    no_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)

    def split(pattern):
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), no_words])

    with tempfile.TemporaryDirectory() as folder:
        session = Session(folder)
        styles = {
            "GPT-2 style": byte_level_bpe(corpus, words),
            "Llama 3 style": with_model(byte_level_bpe(corpus, split(LLAMA3), specials=("<|begin_of_text|>", "<|eot_id|>")), ignore_merges=True),
            "Qwen 2 style": byte_level_bpe(corpus, split(QWEN2), normalizers.NFC(), specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>")),
            "Llama 2 style": llama2_style(corpus),
        }
        for name, tokenizer in styles.items():
            session.add(name, tokenizer, every, By(tokenizer))
            session.add(f"{name}, huge texts", tokenizer, huge, By(tokenizer))
        if SMOLLM2.exists():
            reference = By(smollm2_reference())
            session.add("SmolLM2 GGUF", SMOLLM2, every, reference, json_to=pathlib.Path(folder) / "smollm2.json")
            session.add("SmolLM2 GGUF, huge texts", SMOLLM2, huge, reference)
        if GEMMA3.exists():
            fields = gguf_fields(GEMMA3)
            reference = by_sentencepiece(gemma_sentencepiece(fields), gemma_control(fields))
            session.add("Gemma 3 GGUF (sentencepiece)", GEMMA3, every, reference, json_to=pathlib.Path(folder) / "gemma3.json")
            session.add("Gemma 3 GGUF (sentencepiece), huge texts", GEMMA3, huge, reference)
        if MINILM.exists():
            session.add("MiniLM", MINILM, every, By(Tokenizer.from_file(str(MINILM))))
            session.add("MiniLM, huge texts", MINILM, huge, By(Tokenizer.from_file(str(MINILM))))
        few = every[::8] if arguments.full else lines[:300] + every[len(lines) :: 3]  # components, one by one
        for name, tokenizer in pipelines(corpus[:2000]):
            session.add(name, tokenizer, few, By(tokenizer))
        session.run()
        for name, source in (("smollm2", SMOLLM2), ("gemma3", GEMMA3)):
            path = pathlib.Path(folder) / f"{name}.json"
            if not path.exists():
                print(f"skipped {name}: {source} is not fetched")
                continue
            # The reference reads what to_json() wrote, and so does Lighten; both must agree with the GGUF.
            written = By(Tokenizer.from_file(str(path)))
            session.add(f"{name}, written as tokenizer.json", path, few, written)
            session.add(f"{name}, GGUF against the written tokenizer.json", source, few, written)
        if arguments.full and GEMMA3.exists():
            reference = By(gemma_reference(fields))
            session.add("Gemma 3 GGUF (tokenizers, merges by transformers)", GEMMA3, every, reference)
        session.run()
        check_chat_templates(pathlib.Path(folder))
    print(f"{len(failures)} comparisons failed" if failures else "all ids equal")
    return 1 if failures else 0


def code_point_texts():
    return [line.encode() for line in code_point_lines(random.Random(11))]


if __name__ == "__main__":
    sys.exit(main())
