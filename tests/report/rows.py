"""Rows, choices and files of work directories for the tests of the report."""

import json
import pathlib

import numpy as np

from gift_jax.data import preprocess
from gift_jax.distilled import DistilledDataset, Metadata, save_distilled
from gift_jax.pipeline import results
from gift_jax.report import groups
from gift_jax.soft_labels.store import open_store

SETTINGS = {
    "dataset": "digits",
    "distill": "rded",
    "ipc": 10,
    "teacher": "conv3",
    "soft_labels": "store",
    "label_format": "float16",
    "views": 40,
    "augment": "flip=True",
    "student": "conv3",
    "epochs": 40,
    "batch_size": 50,
    "eval_every": 10,
    "trained_on": "0123456789abcdef",
    "dataset_fingerprint": "fedcba9876543210",
    "init_from": None,
    "code": None,
    "optimizer": "adamw",
    "learning_rate": 0.001,
    "weight_decay": 0.0001,
    "schedule": "step",
    "loss_code": None,
}
assert [*SETTINGS, "loss"] == list(results.SETTINGS)
KL, GIFT = [50.0, 52.5, 51.0, 49.0], [53.0, 54.0, 54.5, 50.0]
T_SQUARED = "kl-t_squared=True"
DEFAULT_RATE = SETTINGS["learning_rate"]
RATES = [DEFAULT_RATE / 10, DEFAULT_RATE, 10 * DEFAULT_RATE, 100 * DEFAULT_RATE]
WORKDIR = pathlib.Path("work")
FINISHED_LABELS = {
    "views": 2, "images": 6, "classes": 3, "format": "float16", "store": ""
}  # fmt: skip


def row(loss, seed, top1, **fields):
    """A row of the results."""
    return {
        **SETTINGS,
        "run_id": "_".join(map(str, [loss, seed, *fields.values()])),
        "workdir": WORKDIR,
        "loss": loss,
        "seed": seed,
        "data_seed": 0,
        "status": "finished",
        "top1_last": top1,
        "top1_best": top1,
        **fields,
    }


def rows(loss, accuracies, **fields):
    """Rows of the seeds 0, 1, ..."""
    return [row(loss, seed, top1, **fields) for seed, top1 in enumerate(accuracies)]


def choice(loss, chosen, **fields):
    """A row of a chosen learning rate."""
    tried = [{"learning_rate": rate, "top1": 50.0} for rate in RATES[:-1]]
    tried.append({"learning_rate": RATES[-1], "top1": None})
    return {
        **SETTINGS,
        "loss": loss,
        "default_learning_rate": DEFAULT_RATE,
        "learning_rate": chosen,
        "validation_images": 500,
        "seeds": [0, 1],
        "tried": tried[::-1],
        **fields,
    }


def choices(**chosen):
    """Choices by loss."""
    return [choice(loss, rate) for loss, rate in chosen.items()]


def compared(all_rows, baseline="kl", chosen=()):
    """All groups of rows, compared."""
    return groups.compare(groups.group_rows(all_rows), baseline, chosen)


def texts(table):
    """The texts of the cells of a table."""
    return [[cell.text for cell in line] for line in table.cells]


def write_rows(workdir, lines, chosen=()):
    """Writes the files of results and of chosen learning rates."""
    workdir.mkdir(parents=True, exist_ok=True)
    for name, content in (("results.jsonl", lines), ("tuning.jsonl", chosen)):
        found = [{k: v for k, v in one.items() if k != "workdir"} for one in content]
        text = "".join(f"{json.dumps(one)}\n" for one in found)
        (workdir / name).write_text(text)


def write_metrics(workdir, run_id, top1):
    """Writes the metrics of a run of 40 epochs, the last line half."""
    directory = workdir / "runs" / run_id
    directory.mkdir(parents=True)
    lines = [{"epoch": e, "loss": 1 / (e + 1), "top1": e / 40} for e in range(40)]
    for epoch in (19, 39):
        lines[epoch] |= {"test_top1": top1 * (epoch + 1) / 40, "test_top5": 99.0}
    text = "".join(f"{json.dumps(one)}\n" for one in lines)
    (directory / "metrics.jsonl").write_text(text + '{"epoch": 40, "lo')


def write_distilled(workdir):
    """Random images of three classes and the soft labels of two views of them."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
    dataset = DistilledDataset(
        images=pixels.astype(np.float32) / 255,
        labels=np.array([0, 0, 1, 1, 2, 2]),
        metadata=Metadata("digits", 3, "rded", "a test"),
        preprocess=preprocess.Normalization((0.5, 0.4, 0.3), (0.2, 0.2, 0.25)),
    )
    save_distilled(dataset, workdir / "distilled" / "rded_ipc10")
    directory = workdir / "soft_labels" / "rded_ipc10"
    store = open_store(directory / "logits", views=2, num_images=6, num_classes=3)
    logits = generator.normal(size=(2, 6, 3)).astype(np.float16)
    for view in range(2):
        store.write(view, 0, logits[view])
    spec = {"flip": True, "pad_crop": 1}
    recipe = {"source": "store", "augment": spec, "seed": 3, "views": 2}
    (directory / "recipe.json").write_text(json.dumps(recipe))
    (directory / "done.json").write_text(json.dumps(FINISHED_LABELS))
    return dataset, logits
