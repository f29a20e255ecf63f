"""lighten index against faiss-cpu: exhaustive Hamming search gives identical distances, and `index export --to faiss` is loaded by
FAISS, which then finds the same neighbours with the same ids. LIGHTEN_BUILD names the build folder."""
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

try:
    import faiss
except ImportError:
    print("skipped: faiss-cpu is not installed")
    sys.exit(77)

BUILD = pathlib.Path(os.environ.get("LIGHTEN_BUILD", "build"))
failures = 0


def check(ok, what):
    global failures
    print(("ok    " if ok else "FAILED ") + what)
    failures += not ok


def lighten(*arguments):
    subprocess.run([str(BUILD / "lighten"), "index", *map(str, arguments), "--quiet"], check=True, stdout=subprocess.DEVNULL)


def unit_vectors(codes, loops):
    """v = 2c - L from packed planes, highest bit first, scaled to length 1."""
    planes = np.unpackbits(codes.reshape(len(codes), loops + 1, -1), axis=2, bitorder="little").astype(np.int32)
    levels = sum(planes[:, i] << (loops - i) for i in range(loops + 1))
    v = (2 * levels - (2 ** (loops + 1) - 1)).astype(np.float64)
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def compare(folder, name, codes, queries, loops):
    np.save(folder / "c.npy", codes)
    np.save(folder / "q.npy", queries)
    lighten("build", "--codes", folder / "c.npy", "--loops", loops, "-o", folder / "idx", "--force")
    np.save(folder / "gone.npy", np.arange(0, len(codes), 7))
    lighten("remove", folder / "idx", "--ids", folder / "gone.npy")
    lighten("search", folder / "idx", "--queries", folder / "q.npy", "-k", 10, "-o", folder / "i.npy", "--distances", folder / "d.npy", "--force")
    lighten("export", folder / "idx", "--to", "faiss", "-o", folder / "idx.faiss", "--force")
    distances = np.load(folder / "d.npy")
    left = np.setdiff1d(np.arange(len(codes)), np.arange(0, len(codes), 7))
    if loops == 0:
        own = faiss.IndexBinaryFlat(codes.shape[1] * 8)
        own.add(codes[left])
        exported = faiss.read_index_binary(str(folder / "idx.faiss"))
        found, theirs = exported.search(queries, 10)
        check(np.array_equal(own.search(queries, 10)[0], distances.astype(np.int32)), f"{name}: distances are IndexBinaryFlat's")
        check(np.array_equal(found, distances.astype(np.int32)), f"{name}: the exported index finds the same distances")
        true = np.unpackbits(codes[theirs] ^ queries[:, None, :], axis=2).sum(2)
        check(np.array_equal(true, found) and not (theirs % 7 == 0).any(), f"{name}: under the ids of the index")
    else:
        exported = faiss.read_index(str(folder / "idx.faiss"))
        v = unit_vectors(codes, loops)
        exact = np.sort(unit_vectors(queries, loops) @ v[left].T, axis=1)[:, ::-1][:, :10]
        similarity, theirs = exported.search(unit_vectors(queries, loops).astype(np.float32), 10)
        check(np.allclose(1 - distances, exact, atol=2e-6), f"{name}: distances are 1 - cosine")
        check(np.allclose(similarity, exact, atol=2e-6), f"{name}: the exported index finds the same cosines")
        true = np.einsum("qkd,qd->qk", unit_vectors(codes, loops)[theirs], unit_vectors(queries, loops))  # ids of equal cosines may differ
        check(np.allclose(true, similarity, atol=2e-6) and not (theirs % 7 == 0).any(), f"{name}: under the ids of the index")
    check(exported.ntotal == len(left), f"{name}: removed codes stay out")


def main():
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for size, loops in ((32, 0), (13, 0), (128, 3), (24, 1), (27, 2)):
            codes, queries = rng.integers(0, 256, (5000, size), np.uint8), rng.integers(0, 256, (40, size), np.uint8)
            compare(folder, f"{size} bytes, u = {loops}", codes, queries, loops)
    print(f"{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
