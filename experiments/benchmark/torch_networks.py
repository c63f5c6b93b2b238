"""The two kinds of networks in PyTorch, layer for layer those of `gift_jax.models`."""

import torch
from torch import nn
from torch.nn import functional as F

FORMATS = {
    "channels_last": torch.channels_last,
    "contiguous": torch.contiguous_format,
}


def create(
    network: str, *, num_classes: int, image_size: int, width: int | None = None
) -> nn.Module:
    """A network by the name that it has in `gift_jax.models.MODELS`."""
    if network == "resnet18_modified":
        return ResNet18(num_classes)
    depth = int(network.removeprefix("conv"))
    return ConvNet(depth, num_classes, image_size, width or 128)


class ConvNet(nn.Sequential):
    """Blocks of 3x3 convolution, batch norm, ReLU and 2x2 average pool; linear."""

    def __init__(
        self, depth: int, num_classes: int, image_size: int, width: int
    ) -> None:
        layers: list[nn.Module] = []
        for block in range(depth):
            layers += [
                nn.Conv2d(width if block else 3, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.AvgPool2d(2),
            ]
        features = width * (image_size // 2**depth) ** 2
        super().__init__(*layers, nn.Flatten(), nn.Linear(features, num_classes))


class _Block(nn.Module):
    """The basic block of torchvision's ResNets."""

    def __init__(self, inputs: int, features: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, features, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, features, 1, stride, bias=False),
                nn.BatchNorm2d(features),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (B, inputs, H, W) to (B, features, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x), inplace=True)


class ResNet18(nn.Sequential):
    """ResNet-18 with a 3x3 stem of stride 1 and no max-pool."""

    def __init__(self, num_classes: int) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(3, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
        ]
        inputs = 64
        for stage in range(4):
            for block in range(2):
                features = 64 * 2**stage
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(_Block(inputs, features, stride))
                inputs = features
        head = nn.Linear(inputs, num_classes)
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
