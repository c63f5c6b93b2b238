"""The benchmark's arithmetic, and its loop of workers."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmark import measure, report, workers, workloads

CONVNET = workloads.WORKLOADS["ConvNet-3, 32x32, batch 50"]


def test_flops_of_convnet_are_those_counted_by_hand():
    per_image = [
        2 * 32 * 32 * 9 * 3 * 128,
        2 * 16 * 16 * 9 * 128 * 128,
        2 * 8 * 8 * 9 * 128 * 128,
        2 * 2048 * 10,
    ]
    assert workloads.forward_flops(CONVNET) == 50 * sum(per_image)
    expected = 50 * (3 * sum(per_image) - per_image[0])
    assert workloads.training_flops(CONVNET) == expected


def test_flops_of_resnet18_are_the_published_ones():
    # 0.5558 GFLOP of multiply-adds for CIFAR's ResNet-18 (kuangliu/pytorch-cifar).
    resnet = workloads.WORKLOADS["ResNet-18, 32x32, batch 50"]
    per_image = workloads.forward_flops(resnet) / resnet.batch_size / 2
    np.testing.assert_allclose(per_image, 0.5558e9, rtol=2e-3)


def samples(**changes):
    seconds = {
        measure.GEMMS[0]: [0.1, 0.2],
        measure.GEMMS[1]: [0.2, 0.4],
        measure.STORED: [1.0, 2.0],
        measure.ONLINE: [2.0, 4.0],
        measure.PYTORCH[0]: [3.0, 6.0],
        measure.PYTORCH[1]: [4.0, 8.0],
    }
    return seconds | changes


def results(seconds):
    return {
        "machine": "one",
        "rounds": 2,
        "workloads": {
            "net": {
                "gflop": 1.0,
                "seconds": seconds,
                "ratios": measure.ratios(seconds, CONVNET),
            }
        },
        "loss_overhead": [1.0, 1.02],
        "grid": {"epochs": 8, "seconds": {"ours": [2.0, 4.0], "PyTorch": [3.0, 6.0]}},
    }


def test_ratios_are_within_a_round_and_to_the_faster_rival():
    found = measure.ratios(samples(), CONVNET)
    assert found["over PyTorch, stored"] == [3.0, 3.0]
    assert found["over PyTorch, online"] == [1.5, 1.5]
    per_second = workloads.training_flops(CONVNET) / 1.0
    np.testing.assert_allclose(
        found["of GEMM peak"], [per_second / (2 * 2048**3 / 0.1)] * 2
    )
    assert not any("kept" in name for name in found)


def test_a_ratio_that_falls_by_more_than_a_fifth_is_a_regression(tmp_path):
    baseline = tmp_path / "baseline.json"
    expected = report.summary(results(samples()))
    assert expected["grid of 8 epochs: over PyTorch"] == 1.5
    baseline.write_text(json.dumps({"ratios": expected | {"not timed": 9.0}}))
    assert report.regressions(results(samples()), baseline) == []
    slower = results(samples(**{measure.STORED: [1.2, 2.4]}))
    assert report.regressions(slower, baseline) == []
    slower = results(samples(**{measure.STORED: [1.3, 2.6]}))
    fallen = report.regressions(slower, baseline)
    assert len(fallen) == 2
    assert "net: over PyTorch, stored is 2.31, 23% below" in "".join(fallen)


def test_markdown_states_medians_and_quartiles():
    text = report.markdown(results(samples()))
    assert "| stored soft labels | 1500.0 [1250.0, 1750.0] |" in text
    assert "| PyTorch | 4.5 [3.8, 5.2] |" in text
    assert "GIFT over cross-entropy: 1.0100 [1.0050, 1.0150]" in text


WORKER = """
from experiments.benchmark import workers

def make(contender, workload):
    if contender == "broken":
        raise ValueError("it is broken")
    print("said by a library")
    return lambda: 2

workers.serve(make)
"""


def test_a_worker_answers_and_its_end_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "some_worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:.")
    with workers.Worker("some_worker") as worker:
        assert 0 <= worker.seconds_per_step("fine", "net") < 1
        with pytest.raises(workers.WorkerError, match=r"some_worker ended.*'broken'"):
            worker.seconds_per_step("broken", "net")


def test_a_workload_is_found_with_other_classes():
    found = workloads.find(f"{CONVNET.name}, 1000 classes")
    assert (found.num_classes, found.network) == (1000, CONVNET.network)
    assert workloads.find(CONVNET.name) is CONVNET
    more = workloads.training_flops(found) - workloads.training_flops(CONVNET)
    assert more == 3 * 2 * 50 * 990 * (128 * 4 * 4)
    with pytest.raises(KeyError):
        workloads.find("ConvNet-30")


@pytest.mark.parametrize("name", list(workloads.WORKLOADS))
def test_torch_networks_have_the_same_parameters(name):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    from experiments.benchmark import torch_networks

    workload = workloads.WORKLOADS[name]
    side = workload.image_size
    theirs = torch_networks.create(
        workload.network, num_classes=workload.num_classes, image_size=side
    )
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    ours = jax.eval_shape(workload.model().init, jax.random.key(0), images)
    assert sorted(p.numel() for p in theirs.parameters()) == sorted(
        leaf.size for leaf in jax.tree.leaves(ours["params"])
    )


def test_torch_augmentation_keeps_the_shape_and_cuts_a_hole():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from experiments.benchmark import official

    torch.manual_seed(0)
    images = 5 + torch.rand(16, 3, 32, 32)
    for _ in range(6):  # all three geometric operations, most likely
        views = official.diffaug(images)
        assert views.shape == images.shape
        holes = (views == 0).all(1).float().mean((1, 2))
        assert (holes >= 0.0625).all()  # a quarter of the hole at least, in a corner
        assert (holes < 0.6).all()


def test_help_needs_no_pytorch():
    command = [sys.executable, "-m", "experiments.benchmark", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "--check" in shown
