"""Flipped bits in a work directory: an error, or the results of the undamaged one."""

import collections
import json
import random
import shutil

import pytest

from gift_jax.configs import digits
from gift_jax.pipeline import job, results
from gift_jax.runtime.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_device")]

FLIPS = 200
# What is read by a second start that has to make the results again.
READ = (
    *("teacher/*/variables/**/*", "teacher/*/*.json"),
    *("distilled/*/distilled.*", "distilled/*/*.json", "soft_labels/*/**/*"),
    *("runs/*/checkpoints/**/*", "runs/*/*.json", "results.jsonl"),
)


def small_config():
    config = digits.get_config("teacher=conv1,student=conv1,distill=rded,ipc=1")
    config.teacher.width = config.student.width = 8
    config.teacher.epochs = config.train.epochs = 2
    config.teacher.min_accuracy = 0.0
    config.distilled.rded.images_per_class = 4
    config.relabel.views = 2
    config.train.eval_every = 1
    config.loss.name = "gift"
    return config


def without_time(rows):
    return [{**row, "train_seconds": 0} for row in rows]


def test_flipped_bits_change_no_result(tmp_path, caplog):
    good = tmp_path / "good"
    expected = without_time(job.run_job(small_config(), good))
    files = sorted({p for pattern in READ for p in good.glob(pattern) if p.is_file()})
    rng, counts = random.Random(0), collections.Counter()
    for number in range(FLIPS):
        file = files[number % len(files)].relative_to(good)
        scratch = tmp_path / "scratch"
        shutil.copytree(good, scratch)
        content = bytearray((scratch / file).read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (scratch / file).write_bytes(content)
        if file.parts[0] == "runs" and "checkpoints" in file.parts:
            # So that it is gone on with, from its last checkpoint.
            next(scratch.glob("runs/*/done.json")).unlink()
            (scratch / "results.jsonl").unlink()
        caplog.clear()
        try:
            rows = job.run_job(small_config(), scratch)
        except UserError as error:
            counts["refused"] += 1
            assert str(scratch) in str(error), error
        else:
            assert without_time(rows) == expected, file
            assert without_time(results.read_results(scratch)) == expected, file
            was_told = "unreadable-" in caplog.text or "passed over" in caplog.text
            counts["made again" if was_told else "harmless"] += 1
        shutil.rmtree(scratch)
    print(json.dumps(counts))
    assert counts["refused"] and counts["made again"]
