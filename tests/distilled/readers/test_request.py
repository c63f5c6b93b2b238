"""Tests of `gift_jax.distilled.readers.request`."""

import pathlib

import pytest

from gift_jax.distilled.readers import (
    Request,
)


class TestNaming:
    @pytest.mark.parametrize(
        ("path", "name", "method"),
        [
            ("syn_data/rded/cifar100_conv3/ipc10/data.pt", "cifar100", "rded"),
            ("exp/imagenet-nette_resnet18_f2_mipc300_ipc10_cr5", "imagenette", None),
            ("sre2l_in1k_rn18_4k_ipc50", "imagenet2012", "sre2l"),
            ("cda_tiny_rn18_4k_ipc100", "tiny_imagenet", "cda"),
            ("2025-rethinkdc-imagenet-rded-ipc-10", "imagenet2012", "rded"),
            ("cifar10/old/cifar100.npz", "cifar100", None),
            ("gvbsm_CIFAR100_ipc1", "cifar100", "gvbsm"),
            ("imagenet-100_conv6", "imagenet100", None),
        ],
    )
    def test_named_by_the_path(self, path, name, method, caplog):
        request = Request(pathlib.Path(path))
        assert request.info().name == name
        assert name in caplog.text
        assert request.method() == (method or "unknown")

    @pytest.mark.parametrize(
        "path", ["data.npz", "cifar10_cifar100.npz", "mycifar10x", "."]
    )
    def test_no_or_several_names(self, path):
        with pytest.raises(ValueError, match="give dataset="):
            Request(pathlib.Path(path)).info()

    def test_given_name_wins_over_the_path(self):
        assert Request(pathlib.Path("cifar10.npz"), "digits").info().name == "digits"
