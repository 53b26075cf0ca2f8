"""Sizes and layers of S3FD."""

from __future__ import annotations

from inference.dimensions.layers import ConvLayer, Shape, shapes_of

# Blocks of VGG-16: number of layers, width; the side is halved after each.
VGG_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
# The six maps with a detection head: layer, channels, class outputs per cell.
HEADS = (
    ("conv3_3_norm", 256, 4),
    ("conv4_3_norm", 512, 2),
    ("conv5_3_norm", 512, 2),
    ("fc7", 1024, 2),
    ("conv6_2", 512, 2),
    ("conv7_2", 256, 2),
)
NORMS = {"conv3_3_norm": 256, "conv4_3_norm": 512, "conv5_3_norm": 512}  # L2 norms, and their widths
NORM_EPSILON = 1e-10
BOX_SIZE = 4


def s3fd_layers() -> dict[str, ConvLayer]:
    """Return its convolutions by name, in the order of its state dict."""
    return {layer.name: layer for layer in (*backbone_layers(), *head_layers())}


def s3fd_shapes() -> dict[str, Shape]:
    """Return the shapes of its tensors, in the order of torch's state dict."""
    norms: dict[str, Shape] = {f"{name}.weight": (width,) for name, width in NORMS.items()}
    return shapes_of(backbone_layers()) | norms | shapes_of(head_layers())


def backbone_layers() -> list[ConvLayer]:
    layers, n_in = [], 3
    for block, (n_layers, width) in enumerate(VGG_BLOCKS, 1):
        for layer in range(1, n_layers + 1):
            layers.append(ConvLayer(f"conv{block}_{layer}", n_in, width))
            n_in = width
    return [
        *layers,
        ConvLayer("fc6", 512, 1024, padding=(3, 3)),
        ConvLayer("fc7", 1024, 1024, 1, padding=(0, 0)),
        ConvLayer("conv6_1", 1024, 256, 1, padding=(0, 0)),
        ConvLayer("conv6_2", 256, 512, 3, stride=(2, 2)),
        ConvLayer("conv7_1", 512, 128, 1, padding=(0, 0)),
        ConvLayer("conv7_2", 128, 256, 3, stride=(2, 2)),
    ]


def head_layers() -> list[ConvLayer]:
    heads = []
    for name, width, n_classes in HEADS:
        heads += [ConvLayer(f"{name}_mbox_conf", width, n_classes), ConvLayer(f"{name}_mbox_loc", width, BOX_SIZE)]
    return heads
