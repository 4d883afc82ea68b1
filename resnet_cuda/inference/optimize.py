"""optimize_for_inference: a copy of a model with its constant norms folded into the convolutions' weights."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Iterator
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import nn

from resnet_cuda.acceleration import restore
from resnet_cuda.exact import runs_in_order, untouched, why_touched
from resnet_cuda.inference import blocks, patterns
from resnet_cuda.inference.convolution import FoldedConv2d
from resnet_cuda.inference.folding import fold, has_norm_inside, is_plain_conv, without_norm
from resnet_cuda.inference.norms import UnfoldableError, is_norm, scale_and_shift_of
from resnet_cuda.inference.pattern import Pair, Pattern, become, is_nothing, pairs_in_sequence
from resnet_cuda.inference.report import OptimizationReport
from resnet_cuda.layers.hooks import is_relu

_RELUS = (F.relu, F.relu_, torch.relu, torch.relu_)


def optimize_for_inference(model: nn.Module) -> nn.Module:
    """A copy of ``model`` for inference: in eval mode, every constant norm folded, ReLU and residual sums fused.

    FrozenBatchNorm2d (of this package, torchvision, detectron2, timm, maskrcnn-benchmark), BatchNorm2d, timm's
    BatchNormAct2d and SyncBatchNorm are folded into the weights of the convolution before them, computed in float64 and
    rounded once to the weight's dtype. ReLU and residual sum are in the convolution's epilogue, which oneDNN, cuDNN or
    this package's kernels run with prepacked weights. Images may have any size, batches may be empty.

    On CUDA a convolution with several usable implementations times them at its first 8 input shapes: cuDNN's fused
    convolution, for 1x1 in 16 bits cuBLASLt's product with an epilogue, torch's convolution with a separate
    elementwise pass. Later shapes take the most frequent choice. While a CUDA graph is captured nothing is timed, and
    an untimed shape takes torch's convolution: call the copy once before the capture.

    The convolution of a norm is found by the class of the block around both: this package's backbones and heads,
    torchvision's ResNets, detectors, FCN and DeepLab heads and Conv2dNormActivation, the ResNets of timm, detectron2
    and mmdetection, and a Sequential that only Sequentials contain. Code of your own may call parts of the copy, such
    as a ResNet's conv1, bn1, relu and layer1, but in the original order: folded norms and their ReLUs are identities,
    and a fused block has only its convolutions. Modules with a hook, a parametrization or another forward, set on them
    or put on their class by other code, and modules that are shared, stay as they are. One warning names the norms that
    stay.

    The copy has its own parameter names: its ``state_dict()`` fits only another optimized copy. Its parameters require
    no gradient, but gradients flow to the input. It can be copied, pickled, compiled, exported and moved to another
    device or dtype; the model may have any dtype. Replace or wrap layers before, not in the copy: its convolutions have
    their block's ReLU in them. Weights are packed at the first call, and again after ``load_state_dict``, in-place
    writes and where a parameter is replaced. Writes that torch does not count (collectives of torch.distributed, fused
    optimizers, other processes, NumPy, inference mode) are noticed on a CPU where they change one of 64 values at equal
    distances in a weight or bias; on CUDA, where under autocast casts of the weights are kept, only by
    ``copy.load_state_dict(copy.state_dict())``. Memory on a CPU: another copy of all weights for each of the last two
    image sizes, and four times the weights of the 3x3 convolutions that use Winograd's algorithm.

    Args:
        model: any module tree; it is not changed. In training mode it is treated as after ``model.eval()``.

    Returns:
        The copy, called as the model. Outputs equal the model's in eval mode up to rounding, and are channels_last. One
        difference: where an activation is NaN, a fused ReLU may give 0, torch's gives NaN.
        ``copy.optimization_report`` is an :class:`~resnet_cuda.inference.OptimizationReport`, which prints as a table.

    Raises:
        TypeError: if ``model`` is not a module, or is scripted or traced: its modules cannot be replaced.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"optimize_for_inference: model is a {type(model).__name__}; give the module that it was made of"
        )
    if not isinstance(model, nn.Module):
        raise TypeError(f"optimize_for_inference: model is a {type(model).__name__}; it must be a torch.nn.Module")
    with torch.inference_mode(False), torch.no_grad():
        optimized: Any = restore(copy.deepcopy(model))  # whose classes are known
        optimized.eval()  # mmdetection's returns nothing
        optimized.requires_grad_(False)
        report = _Optimization(optimized).run()
    optimized.optimization_report = report
    if report.left:
        lines = "\n  ".join(report.reasons())
        warnings.warn(
            f"optimize_for_inference: norms that are not folded, {len(report.left)} in all:\n  {lines}",
            stacklevel=2,
        )
    return optimized


class _Optimization:
    """One run over one copy."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.names = {module: name for name, module in model.named_modules()}
        self.parents: dict[nn.Module, list[nn.Module]] = {}  # one for each name that a module has in them
        for module in model.modules():
            for child in module._modules.values():
                if child is not None:
                    self.parents.setdefault(child, []).append(module)
        self.why: dict[nn.Module, str] = {}
        self.report = OptimizationReport()

    def run(self) -> OptimizationReport:
        norms = [module for module in self.names if is_norm(module)]
        known = {module: found for module in self.names if (found := self._describe(module)) is not None}
        for module, pattern in known.items():
            for pair in pattern.pairs:
                self._fold(pair, module)
        for module in self.names:
            if has_norm_inside(module):
                self._fold_inside(module)
        for module in self.names:
            if is_plain_conv(module) and untouched(module):
                without_norm(module)
        for module, pattern in reversed(known.items()):  # children first
            alone = functools.partial(self._is_alone, within=module)
            if pattern.rewrite is not None and pattern.rewrite(alone):
                self.report.fused.append(self.names[module])
        for module, name in self.names.items():
            if _is_sequential(module) and self._is_stage(module):
                module.__class__ = blocks.FusedStage
                self.report.fused.append(name)
        for norm in norms:
            if is_norm(norm):
                self.report.left[self.names[norm]] = self.why.get(norm) or self._unknown(norm)
        self.report.convolutions = [name for it, name in self.names.items() if type(it) is FoldedConv2d]
        return self.report

    def _describe(self, module: nn.Module) -> Pattern | None:
        found = patterns.describe(module)
        if found is None and module is self.model and _is_sequential(module):
            return Pattern(list(_pairs_in_sequentials(module)))
        return found

    def _fold(self, pair: Pair, within: nn.Module) -> None:
        conv, norm = pair.conv, pair.norm
        if not is_norm(norm):
            return
        name = self.names[norm]
        try:
            self._check_places(within, blocks.convolution_in(conv), norm)
            constants = scale_and_shift_of(norm)
            relu = pair.relu is not None and self._is_alone(pair.relu, within)
            fold(conv, constants, relu)
        except UnfoldableError as error:
            self.why[norm] = str(error)
            return
        become(norm, nn.Identity().eval())
        if relu and pair.relu is not None:
            become(pair.relu, nn.Identity().eval())
        self.report.folded.append(name)

    def _fold_inside(self, conv: Any) -> None:
        """Of detectron2's layer, which calls ``norm`` and ``activation`` itself; its hooks see the same as before."""
        norm, activation = conv.norm, conv.activation
        relu = activation in _RELUS or (isinstance(activation, nn.Module) and is_relu(activation))
        if activation is not None and not relu:
            if norm is not None:
                self.why[norm] = f"{type(conv).__name__} applies an activation that is not a ReLU"
            return
        if norm is None or is_nothing(norm):
            if untouched(conv):
                without_norm(conv, relu)
            return
        if not is_norm(norm):
            return
        name = self.names[norm]
        try:
            self._check_places(conv, norm)
            fold(conv, scale_and_shift_of(norm), relu)
        except UnfoldableError as error:
            self.why[norm] = str(error)
            return
        self.report.folded.append(name)
        self.why.pop(norm, None)
        become(norm, nn.Identity().eval())  # whoever still refers to it

    def _check_places(self, within: nn.Module, *modules: nn.Module) -> None:
        touched = why_touched(nn.Identity())
        if touched is not None:
            raise UnfoldableError(f"the Identity that would take its place {touched}")
        for module in modules:
            shared = self._shared(module, within)
            if shared is not None:
                raise UnfoldableError(f"{type(shared).__name__} stands in {len(self.parents.get(shared, ()))} places")

    def _is_alone(self, module: nn.Module, within: nn.Module) -> bool:
        return self._shared(module, within) is None

    def _shared(self, module: nn.Module, within: nn.Module) -> nn.Module | None:
        """What stands in several places, so that ``module`` does, too: itself or a module around it in ``within``."""
        while module is not within:
            parents = self.parents.get(module, ())
            if len(parents) != 1:
                return module
            module = parents[0]
        return None

    def _unknown(self, norm: nn.Module) -> str:
        try:
            scale_and_shift_of(norm)
        except UnfoldableError as error:
            return str(error)
        around = self.parents.get(norm, [])
        while len(around) == 1:
            patched = patterns.replaced_method(around[0])
            if patched is not None:
                return f"{patched} was replaced"
            around = self.parents.get(around[0], []) if _is_sequential(around[0]) else []
        return "the modules around it are of no known class, so that the convolution before it is not known"

    def _is_stage(self, module: nn.Sequential) -> bool:
        return len(module) > 1 and all(type(it) is blocks.FusedBlock and len(self.parents[it]) == 1 for it in module)


def _is_sequential(module: nn.Module) -> TypeGuard[nn.Sequential]:
    return type(module) is nn.Sequential and runs_in_order(module)


def _pairs_in_sequentials(module: nn.Sequential) -> Iterator[Pair]:
    """Of a Sequential that is the whole model, and of the Sequentials in it: nobody else takes them apart."""
    yield from pairs_in_sequence(module)
    for child in module:
        if _is_sequential(child):
            yield from _pairs_in_sequentials(child)
