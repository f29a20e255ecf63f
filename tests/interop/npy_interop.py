"""Lighten's .npy reader and writer against numpy, bit for bit. Runs `formats_test --gtest_filter=Interop.Npy` on arrays that numpy
saved: every type, scalar to four dimensions, empty ones, header versions 1 to 3. LIGHTEN_BUILD names the build folder."""
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

BUILD = pathlib.Path(os.environ.get("LIGHTEN_BUILD", "build"))
TYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
SHAPES = [(), (0,), (5,), (3, 4), (0, 7), (1, 1), (2, 3, 4), (1, 2, 3, 2)]


def arrays():
    rng = np.random.default_rng(1)
    for kind in TYPES:
        for shape in SHAPES:
            yield f"{kind.replace('?', 'b1')}-{'x'.join(map(str, shape))}", rng.uniform(0, 100, shape).astype(kind)
    yield "column", np.asfortranarray(rng.uniform(size=(6, 1)))
    yield "special", np.array([np.nan, np.inf, -0.0, 1e-45], np.float32)


def main():
    failures = compared = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "npy").mkdir()
        given = {}
        for label, array in arrays():
            for version in (1, 2, 3) if label == "f4-3x4" else (1,):
                path = folder / "npy" / f"{label}-v{version}.npy"
                with open(path, "wb") as file:
                    np.lib.format.write_array(file, array, version=(version, 0))
                given[path] = array
        environment = dict(os.environ, LIGHTEN_INTEROP_DIR=name)
        subprocess.run([str(BUILD / "formats_test"), "--gtest_filter=Interop.Npy"], env=environment, check=True, stdout=subprocess.DEVNULL)
        for path, array in given.items():
            same, floats = np.load(f"{path}.same"), np.load(f"{path}.float")
            ok = same.dtype == array.dtype and same.shape == array.shape and same.tobytes() == array.tobytes()
            ok &= floats.dtype == np.float32 and np.array_equal(floats, array.astype(np.float32), equal_nan=True)
            compared += 1
            if not ok:
                failures += 1
                print(f"FAILED {path.name}: {array.dtype} {array.shape} came back as {same.dtype} {same.shape}")
    print(f"{compared} arrays, {failures} differ")
    return 1 if failures or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
