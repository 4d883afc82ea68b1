"""OpenVINO's DeformableConvolution-8."""

from __future__ import annotations

import torch

from benchmarks.peers import Peer

NAME = "OpenVINO"


def make() -> Peer:
    import openvino

    opset = openvino.opset8

    def forward(case, tensors):
        arguments = [tensors.input, tensors.offset, tensors.weight]
        if tensors.mask is not None:
            arguments.append(tensors.mask)
        arguments = [argument.contiguous() for argument in arguments]
        if case.groups > 1:
            raise RuntimeError("its grouped filters are laid out otherwise")
        parameters = [opset.parameter(list(argument.shape), openvino.Type.f32) for argument in arguments]
        node = opset.deformable_convolution(
            *parameters[:3],
            strides=[case.stride] * 2,
            pads_begin=[1, 1],
            pads_end=[1, 1],
            dilations=[1, 1],
            mask=parameters[3] if len(parameters) == 4 else None,
            auto_pad="EXPLICIT",
            group=case.groups,
            deformable_group=case.offset_groups,
            bilinear_interpolation_pad=True,
        )
        core = openvino.Core()
        model = core.compile_model(
            openvino.Model([node], parameters),
            "CPU",
            {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"},
        )
        request = model.create_infer_request()
        feed = {index: argument.numpy() for index, argument in enumerate(arguments)}
        return lambda: torch.from_numpy(request.infer(feed, share_inputs=True, share_outputs=True)[0])

    return Peer(NAME, forward, False, ("cpu",), (torch.float32,))
