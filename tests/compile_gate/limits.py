"""The limits of every kernel, in one table.

A name is matched as a whole, by exactly one row; a row that matches no kernel is refused as well. For no kernel at all:
spills, a stack, local memory, compare-and-swap loops, float atomics (their sums depend on timing), generic accesses
(the compiler lost track of the memory space).

Registers and spills are those of one toolkit, TOOLKIT. Another one's compiler divides registers otherwise: with it a
kernel has as many as its launch bounds leave, and may spill a few bytes (FEW_BYTES). All else holds for every toolkit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from build_native.architectures import SUPPORTED

TOOLKIT = "13.0"
FEW_BYTES = 32  # of a thread, eight registers: seen with other toolkits are up to 20


@dataclass(frozen=True)
class Limit:
    """``wide``: the least number of 16-byte accesses by LDG and STG (global memory), LDS and STS (shared memory)."""

    kernel: str  # a regular expression
    registers: int  # per thread, at most
    registers_on: Mapping[str, int] = field(default_factory=dict)  # the same on architectures that need more
    wide: Mapping[str, int] = field(default_factory=dict)
    integer_atomics: bool = False
    exactly: Mapping[str, int] = field(default_factory=dict)  # how many of some instructions there must be

    def __post_init__(self) -> None:
        unknown = self.registers_on.keys() - set(SUPPORTED)
        if unknown:
            raise ValueError(
                f"registers_on of {self.kernel!r} has {sorted(unknown)}; allowed are {', '.join(SUPPORTED)}"
            )


# Template arguments <T, Real, N> with 16 bytes of T in a pack, and with fewer.
_WIDE = r"(double, double, 2|float, float, 4|(Half|BFloat16), float, 8)"
_NARROW = r"(double, double, 1|float, float, 1|(Half|BFloat16), float, [12])"

# Template arguments of a pass of FrozenBN: <T, residual or ReLU>. N follows it: 16 bytes of T, or 1.
_PASS = r"<(double|float|Half|BFloat16), (true|false)>"

_REAL4 = r"(float|Half|BFloat16)"  # computed in float32

# What is seen and about a tenth more, at most 64 registers: four blocks of 256 threads then fit a multiprocessor. The
# compiler keeps to that by BlocksPerMultiprocessor (csrc/common/launch.cuh); a kernel with kBlocksPerMultiprocessor = 3
# may have 80, with 2 it may have 128.
LIMITS = (
    Limit(rf"FrozenBnChannelsLast<FrozenBn(Forward|Backward){_PASS}, 1>", 60),
    # Four packs of each tensor that is read, in the first round and in the loop; scale and shift, or weight, bias, mean
    # and variance; in the backward the scales.
    Limit(r"FrozenBnChannelsLast<FrozenBnForward<\w+, false>, [248]>", 64, wide={"LDG": 12, "STG": 4}),
    Limit(r"FrozenBnChannelsLast<FrozenBnForward<\w+, true>, [248]>", 64, wide={"LDG": 20, "STG": 4}),
    Limit(r"FrozenBnChannelsLast<FrozenBnBackward<\w+, false>, [248]>", 64, wide={"LDG": 9, "STG": 8}),
    Limit(r"FrozenBnChannelsLast<FrozenBnBackward<\w+, true>, [248]>", 64, wide={"LDG": 17, "STG": 8}),
    Limit(rf"FrozenBnContiguous<FrozenBn(Forward|Backward){_PASS}, 1>", 64),
    # Four packs in flight, or two of each of two tensors, twice as above; two pieces of code write each, one for packs
    # in one plane, one for those in two.
    Limit(rf"FrozenBnContiguous<FrozenBnForward<{_REAL4}, false>, [48]>", 64, wide={"LDG": 8, "STG": 8}),
    Limit(rf"FrozenBnContiguous<FrozenBnBackward<{_REAL4}, false>, [48]>", 60, wide={"LDG": 8, "STG": 16}),
    Limit(r"FrozenBnContiguous<FrozenBnForward<\w+, true>, [248]>", 64, wide={"LDG": 8, "STG": 4}),
    Limit(r"FrozenBnContiguous<FrozenBnBackward<\w+, true>, [248]>", 60, wide={"LDG": 8, "STG": 8}),
    # Of float64 two.
    Limit(r"FrozenBnContiguous<FrozenBnForward<double, false>, 2>", 64, wide={"LDG": 4, "STG": 4}),
    Limit(r"FrozenBnContiguous<FrozenBnBackward<double, false>, 2>", 50, wide={"LDG": 4, "STG": 8}),
    Limit(r"ForEachIndex<TakeTotal<.*>>", 38),
    Limit(r"ForEachIndex<SumProducts<(float|double)>>", 24, {"10.0": 64, "12.0": 58}),
    Limit(r"ForEachIndex<ReorderTaps<.*>>", 64),
    # Nine packs, of one source and of each further one; of 16-bit types they have 8 bytes.
    Limit(r"ForEachIndex<ReorderNineTaps<(double, double, 2|float, float, 4), \w+>>", 96, wide={"LDG": 18, "STG": 9}),
    Limit(r"ForEachIndex<ReorderNineTaps<float, (Half|BFloat16), 4, true>>", 94, {"7.5": 124}, {"LDG": 18}),
    Limit(r"ForEachIndex<ReorderNineTaps<(Half, Half|BFloat16, BFloat16), 4, \w+>>", 82),
    Limit(r"ForEachIndex<AddBias<\w+, 1>>", 38),
    Limit(r"ForEachIndex<AddBias<\w+, [248]>>", 48, wide={"LDG": 2, "STG": 1}),
    Limit(rf"SampleColumns<{_NARROW}>", 62, wide={"LDS": 4, "STS": 2}),
    # Four corners each of two packs at once and of one; the plan's corners and weights for both.
    Limit(rf"SampleColumns<{_WIDE}>", 64, wide={"LDG": 12, "STG": 3, "LDS": 4, "STS": 2}),
    Limit(r"TapCorners<(float|double)>", 42),
    Limit(r"OuterBoxes", 32),
    Limit(rf"SumRows<{_NARROW}>", 48),
    Limit(rf"SumRows<{_WIDE}>", 64, wide={"LDG": 4}),
    Limit(r"ForEachIndex<FinishBiasGradient<.*>>", 64),
    # Five blocks of 256 threads for float from sm_90 on, four before and for double.
    Limit(
        r"InvertTaps<float>",
        48,
        {"7.5": 64, "8.0": 64, "8.6": 64, "8.9": 64},
        {"LDG": 4, "STS": 1, "LDS": 1},
        integer_atomics=True,
    ),
    Limit(r"InvertTaps<double>", 64, wide={"LDG": 4, "STS": 2, "LDS": 2}, integer_atomics=True),
    Limit(rf"GatherInput<{_NARROW}, 1>", 64),
    # The rows of four entries; of three entries, two packs each.
    Limit(rf"GatherInput<{_WIDE}, 1>", 64, wide={"LDG": 8, "STG": 1}),
    Limit(rf"GatherInput<{_WIDE}, 2>", 64, wide={"LDG": 12, "STG": 2}),
    Limit(rf"PositionGradients<{_NARROW}>", 88, wide={"LDS": 6, "STS": 4}),
    # Four corners and the columns' gradient each of two packs at once and of one; the columns, and those of a border.
    Limit(r"PositionGradients<double, double, 2>", 112, wide={"LDG": 15, "STG": 5, "LDS": 6, "STS": 4}),
    Limit(r"PositionGradients<float, float, 4>", 106, wide={"LDG": 15, "STG": 5, "LDS": 6, "STS": 4}),
    Limit(r"PositionGradients<(Half|BFloat16), float, 8>", 128, wide={"LDG": 15, "STG": 5, "LDS": 6, "STS": 4}),
    Limit(r"Transpose<unsigned short>", 64),
    Limit(r"Transpose<unsigned (int|long)>", 57),
)

# Of the files for sm_90a alone. wgmma (HGMMA) as often as the source has it, without a wait of the compiler's own
# (WARPGROUP.DEPBAR), which serialises the products; registers as many as 384 threads may have.
LIMITS_SM90A = (
    Limit(r"ForEachIndex<PackOperand<.*>>", 36),
    Limit(
        r"WarpgroupProduct<(Half|BFloat16|float), (128|256), .*>",
        168,
        exactly={"HGMMA": 4, "WARPGROUP.ARRIVE": 1, "WARPGROUP.DEPBAR": 2, "USETMAXREG": 2, "UBLKCP": 1},
    ),
    Limit(r"ForEachIndex<PackWeight<(Half|BFloat16|float)>>", 34, wide={"STG": 1}),
    Limit(r"ForEachIndex<PackOutputGradient<(Half|BFloat16)>>", 40, wide={"LDG": 1, "STG": 1}),
    Limit(r"ForEachIndex<SumSplits<(Half|BFloat16|float)>>", 58),
    # Registers of 384, 512 and twice 256 threads, which is what ptxas goes by. Corners of eight rows, and of four.
    Limit(
        r"FusedForward<(Half|BFloat16|float), 128, 256, false>",
        168,
        wide={"LDG": 32, "STG": 2, "LDS": 18, "STS": 10},
        exactly={"HGMMA": 4, "WARPGROUP.ARRIVE": 1, "WARPGROUP.DEPBAR": 2, "USETMAXREG": 2, "UBLKCP": 1},
    ),
    # The loop's products and the last ones: four each, or two by each of the warpgroups that share a step's channels,
    # which then add their sums.
    Limit(
        r"FusedForward<(Half|BFloat16|float), 128, 256, true>",
        128,
        wide={"LDG": 8, "STG": 1, "LDS": 5, "STS": 8},
        exactly={"HGMMA": 8, "WARPGROUP.ARRIVE": 2, "WARPGROUP.DEPBAR": 3, "UBLKCP": 1},
    ),
    Limit(
        r"FusedForward<(Half|BFloat16|float), (64|128), 128, true>",
        128,
        wide={"LDG": 8, "STG": 1, "LDS": 20, "STS": 20},
        exactly={"HGMMA": 4, "WARPGROUP.ARRIVE": 2, "WARPGROUP.DEPBAR": 3, "UBLKCP": 1},
    ),
    Limit(
        r"FusedForward<(Half|BFloat16|float), 128, 128, false>",
        128,
        wide={"LDG": 16, "STG": 1, "LDS": 9, "STS": 6},
        exactly={"HGMMA": 4, "WARPGROUP.ARRIVE": 1, "WARPGROUP.DEPBAR": 2, "USETMAXREG": 2, "UBLKCP": 1},
    ),
    Limit(
        r"FusedForward<(Half|BFloat16|float), 64, 128, false>",
        128,
        wide={"LDG": 16, "STG": 1, "LDS": 9, "STS": 6},
        exactly={"HGMMA": 4, "WARPGROUP.ARRIVE": 1, "WARPGROUP.DEPBAR": 2, "UBLKCP": 1},
    ),
    # Stores of 64 and of 128 sums. The operand in two and in four parts of 64 output channels.
    Limit(
        r"FusedWeightGradient<(Half|BFloat16), 128, false>",
        128,
        wide={"LDG": 16, "STG": 16, "LDS": 8, "STS": 8},
        exactly={"HGMMA": 4, "WARPGROUP.ARRIVE": 1, "WARPGROUP.DEPBAR": 2, "USETMAXREG": 2, "UBLKCP": 2},
    ),
    Limit(
        r"FusedWeightGradient<(Half|BFloat16), 256, false>",
        168,
        wide={"LDG": 32, "STG": 32, "LDS": 16, "STS": 12},
        exactly={"HGMMA": 8, "WARPGROUP.ARRIVE": 2, "WARPGROUP.DEPBAR": 3, "USETMAXREG": 2, "UBLKCP": 4},
    ),
    # The loop's products and the last ones, as above.
    Limit(
        r"FusedWeightGradient<(Half|BFloat16), 128, true>",
        128,
        wide={"LDG": 8, "STG": 16, "LDS": 4, "STS": 6},
        exactly={"HGMMA": 4, "WARPGROUP.ARRIVE": 2, "WARPGROUP.DEPBAR": 3, "UBLKCP": 2},
    ),
    Limit(
        r"FusedWeightGradient<(Half|BFloat16), 256, true>",
        128,
        wide={"LDG": 8, "STG": 16, "LDS": 4, "STS": 6},
        exactly={"HGMMA": 8, "WARPGROUP.ARRIVE": 2, "WARPGROUP.DEPBAR": 3, "UBLKCP": 4},
    ),
    Limit(r"ForEachIndex<SumTiles<(float|Half|BFloat16), (128|256), 1>>", 44, wide={"LDG": 7}),
    Limit(r"ForEachIndex<SumTiles<(float|Half|BFloat16), 128, 2>>", 60, wide={"LDG": 7}),
    Limit(r"ForEachIndex<PackTransposedWeight<(Half|BFloat16)>>", 44, wide={"STG": 1}),
    # Per 16 bytes of a thread's columns four corners and a store. Of the three copies two are of the output's gradient.
    Limit(
        r"FusedColumnGradient<(Half|BFloat16), 256, [48]>",
        168,
        wide={"LDG": 64, "STG": 16},
        exactly={"HGMMA": 4, "WARPGROUP.ARRIVE": 1, "WARPGROUP.DEPBAR": 2, "USETMAXREG": 2, "UBLKCP": 3},
    ),
    Limit(
        r"FusedColumnGradient<(Half|BFloat16), 128, 4>",
        168,
        wide={"LDG": 32, "STG": 8},
        exactly={"HGMMA": 4, "WARPGROUP.ARRIVE": 1, "WARPGROUP.DEPBAR": 2, "USETMAXREG": 2, "UBLKCP": 3},
    ),
)


def limits_on(architecture: str) -> tuple[Limit, ...]:
    return LIMITS_SM90A if architecture == "9.0a" else LIMITS
