"""Lighten's metrics against scikit-learn and scipy, to 1e-9: classification, multi-label, ranking, calibration, McNemar. Where scikit-learn
has no such metric (recall@k, propensity-scored precision@k) numpy computes it from its definition. The C++ side is eval_test's
MetricsInterop."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import scipy.stats
import sklearn.metrics as m
from sklearn.calibration import calibration_curve

BUILD = pathlib.Path(os.environ.get("LIGHTEN_BUILD", "build"))
LIMIT = 1e-9
rng = np.random.default_rng(4)
SAMPLES, CLASSES, COLUMNS = 700, 9, 40


def inputs():
    labels = rng.choice(CLASSES, SAMPLES, p=np.arange(1, CLASSES + 1) / 45)
    predictions = np.where(rng.random(SAMPLES) < 0.6, labels, rng.integers(0, CLASSES, SAMPLES))
    predictions[predictions == 3] = 4  # a class that is never predicted
    multi = (rng.random((SAMPLES, COLUMNS)) < 0.3 * rng.random(COLUMNS) ** 2).astype(int)
    multi[:, 7] = 0  # a label that nobody has
    scores = multi * 0.7 + rng.normal(size=multi.shape)
    scores[:, :10] = np.round(scores[:, :10], 1)  # ties
    binary = (rng.random(SAMPLES) < 0.4).astype(int)
    binary_scores = np.round(binary + rng.normal(size=SAMPLES), 1)
    class_probabilities = rng.dirichlet(np.ones(CLASSES) * 0.5, SAMPLES)
    return dict(labels=labels, predictions=predictions, multi=multi, scores=scores, chosen=(scores > 0.5).astype(int), binary=binary,
                binary_scores=binary_scores, probabilities=np.round(rng.random(SAMPLES), 2), class_probabilities=class_probabilities,
                training=(rng.random((5000, COLUMNS)) < 0.1 * rng.random(COLUMNS)).astype(int), second=(rng.random(SAMPLES) < 0.45).astype(int),
                rank_scores=multi * 0.7 + rng.normal(size=multi.shape))  # fmt: skip


def reference(d):
    out = {
        "accuracy": m.accuracy_score(d["labels"], d["predictions"]),
        "f1_macro": m.f1_score(d["labels"], d["predictions"], average="macro", zero_division=0),
        "f1_micro": m.f1_score(d["labels"], d["predictions"], average="micro"),
        "confusion": m.confusion_matrix(d["labels"], d["predictions"], labels=range(CLASSES)),
        "multi_f1_macro": m.f1_score(d["multi"], d["chosen"], average="macro", zero_division=0),
        "multi_f1_micro": m.f1_score(d["multi"], d["chosen"], average="micro"),
        "multi_f1_per_class": m.f1_score(d["multi"], d["chosen"], average=None, zero_division=0),
        "hamming": m.hamming_loss(d["multi"], d["chosen"]),
        "subset_accuracy": m.accuracy_score(d["multi"], d["chosen"]),
        "auc": m.roc_auc_score(d["binary"], d["binary_scores"]),
        "average_precision": m.average_precision_score(d["binary"], d["binary_scores"]),
        "brier": m.brier_score_loss(d["binary"], d["probabilities"]),
        "log_loss": m.log_loss(d["labels"], d["class_probabilities"], labels=range(CLASSES)),
    }
    held = d["multi"].any(0)
    out["map"] = m.average_precision_score(d["multi"][:, held], d["scores"][:, held], average="macro")
    # scikit-learn's bins, weighted by how many samples each holds.
    accuracy, confidence = calibration_curve(d["binary"], d["probabilities"], n_bins=15)
    where = np.searchsorted(np.linspace(0, 1, 16)[1:-1], d["probabilities"])
    weights = np.bincount(where, minlength=15)
    out["ece"] = np.sum(weights[weights > 0] / SAMPLES * np.abs(accuracy - confidence))
    b, c = int(((d["binary"] == 1) & (d["second"] == 0)).sum()), int(((d["binary"] == 0) & (d["second"] == 1)).sum())
    out["mcnemar"] = scipy.stats.binomtest(b, b + c, 0.5).pvalue
    rows = d["multi"].any(1)
    truth, scores = d["multi"][rows], d["rank_scores"][rows]
    order = np.argsort(-scores, axis=1)
    counts = d["training"].sum(0)
    constant = (np.log(len(d["training"])) - 1) * 2.5**0.55
    weight = 1 + constant * (counts + 1.5) ** -0.55  # 1 / propensity
    for k in (1, 3, 5, 10):
        top = np.zeros_like(truth)
        np.put_along_axis(top, order[:, :k], 1, 1)
        out[f"precision@{k}"] = m.precision_score(truth, top, average="samples")
        out[f"recall@{k}"] = m.recall_score(truth, top, average="samples")
        out[f"ndcg@{k}"] = m.ndcg_score(truth, scores, k=k)
        best = -np.sort(-truth * weight, axis=1)[:, :k]
        out[f"psp@{k}"] = (truth * top * weight).sum() / best.sum()
    return out


def main():
    d = inputs()
    order = np.argsort(-d["rank_scores"], axis=1)
    job = dict(
        labels=d["labels"].tolist(), predictions=d["predictions"].tolist(), classes=CLASSES, columns=COLUMNS, multi_labels=d["multi"].ravel().tolist(),
        multi_predictions=d["chosen"].ravel().tolist(), multi_scores=d["scores"].ravel().tolist(), binary_labels=d["binary"].tolist(),
        binary_scores=d["binary_scores"].tolist(), probabilities=d["probabilities"].tolist(), class_probabilities=d["class_probabilities"].ravel().tolist(),
        second_right=d["second"].tolist(), ranked=order[:, :10].tolist(), relevant=[np.flatnonzero(row).tolist() for row in d["multi"]],
        training_labels=[np.flatnonzero(row).tolist() for row in d["training"]],
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "metrics.json").write_text(json.dumps(job))
        done = subprocess.run([str(BUILD / "eval_test"), "--gtest_filter=MetricsInterop.*"], env=dict(os.environ, LIGHTEN_INTEROP_DIR=folder),
                              capture_output=True, text=True)  # fmt: skip
        if done.returncode or "[  PASSED  ] 1 test" not in done.stdout:
            print(done.stdout[-3000:], done.stderr[-2000:])
            return 1
        ours = json.loads((pathlib.Path(folder) / "metrics.out.json").read_text())
    good = True
    for name, expected in reference(d).items():
        worst = float(np.max(np.abs(np.asarray(ours.pop(name), float) - np.asarray(expected, float))))
        good = good and worst <= LIMIT
        print(f"{'ok    ' if worst <= LIMIT else 'FAILED'}  {name:20} difference {worst:.1e}")
    print(f"metrics compared with scikit-learn; not compared: {sorted(ours) or 'none'}")
    return 0 if good and not ours else 1


if __name__ == "__main__":
    sys.exit(main())
