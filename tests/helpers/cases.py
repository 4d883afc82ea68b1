"""The one list of named shapes that the operator tests share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeformCase:
    """One deformable convolution. Pairs are (vertical, horizontal)."""

    name: str
    batch: int = 2
    channels: int = 4
    out_channels: int = 6
    size: tuple[int, int] = (7, 6)
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    offset_groups: int = 1
    mask: bool = True
    bias: bool = True
    spread: int = 4  # offsets are drawn from about [-spread, spread]

    @property
    def out_size(self) -> tuple[int, int]:
        height, width = (
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, padding, dilation, kernel, stride in zip(
                self.size, self.padding, self.dilation, self.kernel, self.stride, strict=True
            )
        )
        return height, width

    @property
    def geometry(self) -> dict[str, tuple[int, int]]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    def __str__(self) -> str:
        return self.name


# N = 0 has a file of its own (ops/test_deform_conv_empty.py): its right answers are empty or zero.
DEFORM_CASES = (
    DeformCase("plain"),
    DeformCase("v1", mask=False),
    DeformCase("no_bias", bias=False),
    DeformCase("v1_no_bias", mask=False, bias=False),
    DeformCase("one_image", batch=1),
    DeformCase("three_images", batch=3, size=(5, 9)),
    # weight groups
    DeformCase("groups_2", groups=2),
    DeformCase("depthwise", channels=7, out_channels=7, groups=7),
    DeformCase("depthwise_multiplier_2", channels=5, out_channels=10, groups=5),
    DeformCase("groups_32", channels=64, out_channels=64, groups=32, size=(5, 6)),
    # offset groups, alone and across weight groups
    DeformCase("offset_groups_2", offset_groups=2),
    DeformCase("offset_groups_4", channels=8, offset_groups=4),
    DeformCase("offset_groups_4_v1", channels=8, offset_groups=4, mask=False),
    DeformCase("groups_2_offset_groups_4", channels=8, groups=2, offset_groups=4),
    DeformCase("groups_4_offset_groups_2", channels=8, out_channels=8, groups=4, offset_groups=2),
    DeformCase("groups_2_offset_groups_3", channels=6, groups=2, offset_groups=3),
    DeformCase("offset_group_per_channel", channels=5, offset_groups=5),
    # kernels and geometry
    DeformCase("kernel_1x1", kernel=(1, 1), padding=(0, 0)),
    DeformCase("kernel_5x3", kernel=(5, 3), padding=(2, 1), size=(9, 8)),
    DeformCase("kernel_2x4", kernel=(2, 4), padding=(1, 2)),
    DeformCase("stride_2", stride=(2, 2), size=(9, 8)),
    DeformCase("stride_2x3", stride=(2, 3), padding=(0, 2), size=(9, 11)),
    DeformCase("dilation_2", dilation=(2, 2), padding=(2, 2), size=(9, 8)),
    DeformCase("per_axis_all", stride=(2, 1), padding=(3, 0), dilation=(1, 2), size=(8, 11)),
    DeformCase("no_padding", padding=(0, 0)),
    DeformCase("wide_padding", padding=(4, 3), size=(3, 4)),
    # sizes
    DeformCase("odd_size", size=(13, 11)),
    DeformCase("one_row", size=(1, 9)),
    DeformCase("one_column", size=(9, 1)),
    DeformCase("one_pixel", size=(1, 1), batch=3, spread=1),
    DeformCase("output_1x1", size=(3, 3), padding=(0, 0), batch=3),
    DeformCase("smaller_than_kernel", size=(2, 2), kernel=(5, 5), padding=(2, 2)),
    # channel counts beside the widths of vectors, and across tiles
    DeformCase("channels_1_to_1", channels=1, out_channels=1),
    DeformCase("channels_3_to_7", channels=3, out_channels=7),
    DeformCase("channels_7_to_3", channels=7, out_channels=3),
    DeformCase("channels_17_to_33", channels=17, out_channels=33, size=(6, 5)),
    DeformCase("channels_33_to_17", channels=33, out_channels=17, size=(6, 5)),
    DeformCase("channels_64_to_64", channels=64, out_channels=64, size=(8, 8)),
    DeformCase("tiles", channels=40, out_channels=70, size=(37, 29)),
    DeformCase("tiles_v1_stride_2", channels=40, out_channels=70, size=(37, 29), stride=(2, 2), mask=False),
    DeformCase("kernel_7x7_channels_40", channels=40, kernel=(7, 7), padding=(3, 3), size=(9, 8)),
    DeformCase("channels_330_kernel_1x1", channels=330, out_channels=5, kernel=(1, 1), padding=(0, 0), size=(5, 7)),
    DeformCase("channels_66_to_130_offset_groups_2", channels=66, out_channels=130, offset_groups=2, size=(6, 5)),
    DeformCase("tiles_grouped", channels=48, out_channels=72, size=(19, 23), groups=2, offset_groups=3),
)
DEFORM_CASES_BY_NAME = {case.name: case for case in DEFORM_CASES}

# For kernels that multiply pairs of channels: odd numbers of them in groups, and beside those of a vector (32) and of a
# slab (64, 576 of a 1x1 kernel).
PAIR_CASES = (
    DeformCase("channels_31", channels=31, out_channels=5),
    DeformCase("channels_63", channels=63, out_channels=34),
    DeformCase("channels_65", channels=65, out_channels=16),
    DeformCase("channels_97", channels=97, out_channels=33, size=(9, 13)),
    DeformCase("channels_129_offset_groups_3", channels=129, out_channels=7, offset_groups=3),
    DeformCase("channels_195_groups_3_offset_groups_5", channels=195, out_channels=9, groups=3, offset_groups=5),
    DeformCase("channels_577_kernel_1x1", channels=577, kernel=(1, 1), padding=(0, 0)),
    DeformCase("channels_67_kernel_7x7", channels=67, kernel=(7, 7), padding=(3, 3), size=(9, 8)),
    DeformCase("channels_18_groups_3_offset_groups_2", channels=18, out_channels=9, groups=3, offset_groups=2),
)


@dataclass(frozen=True)
class NormCase:
    """One FrozenBatchNorm + residual + ReLU over (N, C, H, W)."""

    name: str
    shape: tuple[int, int, int, int]
    residual: bool = False
    relu: bool = True

    def __str__(self) -> str:
        return self.name


NORM_CASES = (
    NormCase("relu", (2, 4, 5, 7)),
    NormCase("affine", (2, 4, 5, 7), relu=False),
    NormCase("residual", (2, 4, 5, 7), residual=True),
    NormCase("residual_affine", (2, 4, 5, 7), residual=True, relu=False),
    NormCase("one_value", (3, 2, 1, 1), residual=True),
    NormCase("one_channel", (3, 1, 5, 3), residual=True),
    NormCase("channels_3", (1, 3, 7, 5), residual=True),
    NormCase("channels_7", (3, 7, 3, 3)),
    NormCase("channels_17", (2, 17, 3, 5), residual=True),
    NormCase("channels_33", (2, 33, 5, 3), residual=True, relu=False),
    NormCase("one_row", (2, 5, 1, 9), residual=True),
    NormCase("tiles", (2, 70, 37, 29), residual=True),
)
