"""PyTorch's names of weights: each weight of a network has one, and none has two."""

import jax
import pytest

from gift_jax import models
from gift_jax.torch_io import names

NETWORKS = {
    "conv3": 32,
    "resnet18": 32,
    "resnet18_modified": 32,
    "resnet20": 32,
    "wrn": 32,
    "vgg11": 32,
    "vgg11_bn": 32,
    "mobilenet_v2": 32,
    "efficientnet_b0": 32,
}


@pytest.mark.parametrize(("name", "side"), NETWORKS.items())
def test_every_module_with_weights_has_one_name(name, side):
    model = models.create_model(name, num_classes=10, image_size=side)
    shapes = jax.eval_shape(
        lambda key: models.init_variables(model, key, image_size=side),
        jax.random.key(0),
    )
    paths = {
        "/".join(key.key for key in path[:-1])
        for path, _ in jax.tree_util.tree_leaves_with_path(shapes["params"])
    }
    for layout, table in names.torch_tables(model).items():
        assert set(table) == paths, layout
        found = [module.name for module in table.values()]
        assert len(set(found)) == len(found), layout


def test_resnet_names_are_torchvision_s():
    model = models.create_model("resnet18", num_classes=10, image_size=32)
    table = names.torch_tables(model)["torchvision"]
    found = {module.name for module in table.values()}
    assert {"conv1", "bn1", "layer1.0.conv1", "layer2.0.downsample.0", "fc"} <= found
