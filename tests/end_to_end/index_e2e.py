"""lighten index as a user calls it: build, search, add, remove, check; results against numpy; wrong input."""
import json

import numpy as np

from support import LIGHTEN, check, check_error, finish, lighten, need, scratch

need(LIGHTEN, "build lighten first")
folder = scratch()
rng = np.random.default_rng(1)


def save(name, array):
    np.save(folder / name, array)
    return folder / name


def nearest(codes, queries, k, ids=None):
    """By counting bits in numpy; ties by smaller id."""
    ids = np.arange(len(codes)) if ids is None else ids
    distances = np.unpackbits(codes[None, :, :] ^ queries[:, None, :], axis=2).sum(2)
    order = np.lexsort((np.broadcast_to(ids, distances.shape), distances), axis=1)[:, :k]
    return ids[order], np.take_along_axis(distances, order, 1)


codes, queries = rng.integers(0, 256, (3000, 32), np.uint8), rng.integers(0, 256, (50, 32), np.uint8)
code_file, query_file, index = save("codes.npy", codes), save("queries.npy", queries), folder / "idx"
done = lighten("index", "build", "--codes", code_file, "-o", index)
check(done.returncode == 0 and "3000 codes" in done.stdout, "build from codes", done)


def search(*more):
    done = lighten("index", "search", index, "--queries", query_file, "-k", 7, "-o", folder / "ids.npy", "--distances", folder / "d.npy", "--json", folder / "s.json", "--force", *more)
    check(done.returncode == 0, f"search {' '.join(map(str, more))}", done)
    return np.load(folder / "ids.npy"), np.load(folder / "d.npy")


expected = nearest(codes, queries, 7)
for more in ([], ["--batch", 1], ["--batch", 17, "--repeat", 3, "--threads", 1]):
    ids, distances = search(*more)
    check(ids.dtype == np.int64 and ids.shape == (50, 7) and np.array_equal(ids, expected[0]) and np.array_equal(distances, expected[1]), f"neighbours as numpy's {more}")
speed = json.loads((folder / "s.json").read_text())["queries_per_s"]
check(0 < speed["min"] <= speed["median"] <= speed["max"], "queries_per_s has min, median, max")

more = rng.integers(0, 256, (500, 32), np.uint8)
done = lighten("index", "add", index, "--codes", save("more.npy", more), "--json", "-")
check(done.returncode == 0 and json.loads(done.stdout)["first_id"] == 3000, "add", done)
gone = np.unique(np.concatenate([expected[0][:, 0], [3100, 3499]]))
done = lighten("index", "remove", index, "--ids", save("gone.npy", gone))
check(done.returncode == 0, "remove", done)
every, left = np.concatenate([codes, more]), np.setdiff1d(np.arange(3500), gone)
ids, distances = search()
expected = nearest(every[left], queries, 7, left)
check(np.array_equal(ids, expected[0]) and np.array_equal(distances, expected[1]), "neighbours after adding and removing")
check(lighten("index", "check", index).returncode == 0, "check")

vectors = rng.normal(size=(400, 24)).astype(np.float32)
done = lighten("index", "build", "--vectors", save("v.npy", vectors), "-o", folder / "signs", "--lists", 4)
check(done.returncode == 0, "build from vectors, in lists", done)
done = lighten("index", "search", folder / "signs", "--queries", folder / "v.npy", "-k", 1, "--probes", 1, "-o", folder / "self.npy")
signs = np.packbits(vectors >= 0, axis=1)
check(done.returncode == 0 and np.array_equal(signs[np.load(folder / "self.npy")[:, 0]], signs), "every vector finds its own code", done)

# Learned codes: questions know 10 of a document's 24 columns; only the pairs tell which. 200 questions are kept for the test.
documents = rng.normal(size=(2200, 24)).astype(np.float32)
questions = rng.normal(size=documents.shape).astype(np.float32)
questions[:, :10] = documents[:, :10] + 0.2 * questions[:, :10]
pairs = save("pairs.npy", np.stack([questions, documents], 1)[:2000])
document_file, question_file = save("d.npy", documents), save("q.npy", questions[2000:])


def found(index, name):
    done = lighten("index", "search", index, "--queries", question_file, "-k", 10, "-o", folder / name)
    check(done.returncode == 0, f"search with float queries in {index.name}", done)
    return float(np.mean([i + 2000 in row for i, row in enumerate(np.load(folder / name))]))


short = ["--epochs", 6, "--learning-rate", 0.003, "--batch-size", 128, "--queue", 4, "--seed", 3]
done = lighten("index", "build", "--vectors", document_file, "--method", "bebr", "--bits", 128, "--pairs", pairs, *short, "-o", folder / "learned", "--json", "-")
check(done.returncode == 0, "build with pairs", done)
done = lighten("index", "build", "--vectors", document_file, "--method", "bebr", "--bits", 128, *short, "-o", folder / "alone")
check(done.returncode == 0, "build without pairs", done)
learned, alone = found(folder / "learned", "i1.npy"), found(folder / "alone", "i2.npy")
check(learned > 1.3 * alone > 0, f"pairs teach what belongs together ({learned:.2f} beside {alone:.2f})")
done = lighten("index", "search", folder / "alone", "--queries", document_file, "-k", 1, "-o", folder / "self.npy", "--distances", folder / "self_d.npy", "--force")
check(done.returncode == 0 and np.mean(np.load(folder / "self.npy")[:, 0] == np.arange(2200)) > 0.99 and np.abs(np.load(folder / "self_d.npy")).max() < 1e-5, "a document finds itself", done)
done = lighten("index", "build", "--vectors", document_file, "--like", folder / "learned", "-o", folder / "like")
check(done.returncode == 0 and found(folder / "like", "i3.npy") == learned, "--like encodes as before", done)
# A new encoder sees everything mirrored; its queries are to find the old codes.
for name, array in (("new_d.npy", documents), ("new_q.npy", questions[2000:])):
    save(name, array[:, ::-1] * np.where(np.arange(24) % 2, 1, -1).astype(np.float32))
question_file = folder / "new_q.npy"
done = lighten("index", "build", "--vectors", folder / "new_d.npy", "--method", "bebr", "--compatible-with", folder / "alone", "--dimensions", 32, *short, "-o", folder / "new")
check(done.returncode == 0, "compatible training", done)
done = lighten("index", "search", folder / "new", "--queries", folder / "new_d.npy", "-k", 10, "-o", folder / "i4.npy")
check(done.returncode == 0 and np.mean([i in row for i, row in enumerate(np.load(folder / "i4.npy"))]) > 0.8, "new queries find old codes", done)
check_error(lighten("index", "build", "--vectors", document_file, "--method", "bebr", "--bits", 130, "-o", folder / "x"), 2, ["--bits 130", "multiple of 4"], "bits that are no multiple")
check_error(lighten("index", "build", "--vectors", document_file, "--method", "bebr", "--pairs", save("p2.npy", np.array([[0, 2200]])), "-o", folder / "x"), 1, ["row 0", "vector 2200"], "a pair of a vector that is not there")
check_error(lighten("index", "build", "--vectors", document_file, "--method", "bebr", "--pairs", question_file, "-o", folder / "x"), 1, ["new_q.npy", "[n, 2, 24]"], "pairs of another shape")

check_error(lighten("index", "search", index, "--queries", query_file, "-k", 7, "-o", folder / "ids.npy"), 1, ["ids.npy", "--force"], "neighbours that exist are not overwritten")
check_error(lighten("index", "search", index, "--queries", query_file, "-k", 7, "-o", folder / "i5.npy", "--distances", folder / "d.npy"), 1, ["d.npy", "--force"], "nor distances")
done = lighten("index", "export", index, "-o", folder / "idx.faiss")
check(done.returncode == 0, "export", done)
check_error(lighten("index", "export", index, "-o", folder / "idx.faiss"), 1, ["idx.faiss", "--force"], "nor an export")
check(lighten("index", "export", index, "-o", folder / "idx.faiss", "--force").returncode == 0, "--force replaces it")
# Flags that nothing would read.
for what, flags, words in (
    ("pairs for sign bits", ["--vectors", document_file, "--pairs", pairs], ["--pairs", "bebr", "hamming (the default)"]),
    ("epochs for itq", ["--vectors", document_file, "--method", "itq", "--epochs", 3], ["--epochs", "bebr", "itq"]),
    ("training rows for sign bits", ["--vectors", document_file, "--method", "hamming", "--train-rows", 100], ["--train-rows", "itq, bebr"]),
    ("training rows beside pairs", ["--vectors", document_file, "--method", "bebr", "--pairs", pairs, "--train-rows", 100], ["--train-rows", "--pairs"]),
    ("old codes for itq", ["--vectors", document_file, "--method", "itq", "--compatible-with", folder / "alone"], ["--compatible-with", "bebr", "itq"]),
    ("bits for codes", ["--codes", code_file, "--bits", 64], ["--bits", "--codes"]),
    ("a method beside --like", ["--vectors", document_file, "--like", folder / "learned", "--method", "itq"], ["--like", "--method"]),
    ("training beside --like", ["--vectors", document_file, "--like", folder / "learned", "--epochs", 3], ["--epochs", "bebr", "--like"]),
    ("codes beside --like", ["--codes", code_file, "--like", folder / "learned"], ["--like", "--codes"]),
    ("bits and dimensions", ["--vectors", document_file, "--method", "bebr", "--bits", 128, "--dimensions", 32], ["--bits", "--dimensions"]),
):  # fmt: skip
    check_error(lighten("index", "build", *flags, "-o", folder / "x"), 2, words, what)
check_error(lighten("index"), 2, ["needs an action"], "no action")
check_error(lighten("index", "build", "-o", folder / "x"), 2, ["--vectors", "--codes"], "nothing to build from")
check_error(lighten("index", "build", "--codes", code_file, "-o", index), 1, ["already exists", "--force"], "a folder that exists")
check_error(lighten("index", "build", "--codes", folder / "v.npy", "-o", folder / "x"), 1, ["v.npy", "uint8"], "floats as codes")
check_error(lighten("index", "build", "--vectors", folder / "v.npy", "--method", "hammin", "-o", folder / "x"), 2, ["did you mean 'hamming'?"], "unknown method")
check_error(lighten("index", "build", "--codes", code_file, "--ids", save("two.npy", np.zeros(3000, np.int64)), "-o", folder / "x"), 1, ["two.npy", "row 1", "first in row 0"], "ids twice")
bad = vectors.copy()
bad[7, 3] = np.nan
check_error(lighten("index", "build", "--vectors", save("nan.npy", bad), "-o", folder / "x"), 1, ["nan.npy", "row 7, column 3"], "NaN in a vector")
check(not (folder / "x").exists(), "nothing is left of failed builds")
check_error(lighten("index", "search", index, "--queries", folder / "v.npy", "-o", folder / "i.npy"), 2, ["v.npy", "no encoder"], "float queries without an encoder")
check_error(lighten("index", "search", folder / "none", "--queries", query_file, "-o", folder / "i.npy"), 1, ["there is no index here"], "no index")
check_error(lighten("index", "search", folder / "signs", "--queries", query_file, "-o", folder / "i.npy"), 1, ["32 bytes", "3"], "codes of another width")
check_error(lighten("index", "add", folder / "signs", "--vectors", save("w.npy", vectors[:, :5])), 1, ["5 columns", "24"], "vectors of another width")
check_error(lighten("index", "remove", index, "--ids", save("u.npy", np.array([99999]))), 2, ["id 99999 is not in"], "an id that is not there")
segment = next(index.glob("segment-*.bin"))
data = bytearray(segment.read_bytes())
data[len(data) // 2] ^= 1
segment.write_bytes(data)
check_error(lighten("index", "check", index), 1, [segment.name, "damaged"], "a flipped bit")
for what, array, words in (
    ("ids that repeat", np.r_[np.arange(2999), 5], ["row 2999", "id 5", "row 5"]), ("too few ids", np.arange(3), ["3 ids", "3000"]), ("a negative id", np.arange(3000) - 1, ["row 0", "-1"]),
    ("ids that are no whole numbers", np.arange(3000.0), ["I64"]),
):  # fmt: skip
    check_error(lighten("index", "build", "--codes", code_file, "--ids", save("bad-ids.npy", array), "-o", folder / "none"), 1, ["bad-ids.npy", *words], what)
# --force replaces an index that has grown, but never what others wrote.
grown = folder / "grown"
lighten("index", "build", "--codes", code_file, "-o", grown)
check(lighten("index", "add", grown, "--codes", code_file).returncode == 0, "an index grows")
check(lighten("index", "build", "--codes", code_file, "-o", grown, "--force").returncode == 0, "--force replaces it")
(grown / "thesis.txt").write_text("years")
check_error(lighten("index", "build", "--codes", code_file, "-o", grown, "--force"), 1, ["thesis.txt", "not written by lighten"], "--force beside a file of others")
(folder / "mine").mkdir()
(folder / "mine/thesis.txt").write_text("years")
check_error(lighten("index", "build", "--codes", code_file, "-o", folder / "mine", "--force"), 1, ["mine", "not written by lighten"], "--force on a folder of others")
check((folder / "mine/thesis.txt").read_text() == (grown / "thesis.txt").read_text() == "years", "nothing of theirs is lost")
finish()
