"""ONNX Runtime's DeformConv (opset 19), called with the tensors' own memory."""

from __future__ import annotations

import torch

from benchmarks.peers import Peer

NAME = "ONNX Runtime"


def _model(case, tensors) -> bytes:
    from onnx import TensorProto, helper

    inputs = {"X": tensors.input, "W": tensors.weight, "offset": tensors.offset}
    if tensors.mask is not None:
        inputs["mask"] = tensors.mask
    node = helper.make_node(
        "DeformConv",
        ["X", "W", "offset", "", "mask"] if tensors.mask is not None else ["X", "W", "offset"],
        ["Y"],
        kernel_shape=[3, 3],
        strides=[case.stride] * 2,
        pads=[1] * 4,
        group=case.groups,
        offset_group=case.offset_groups,
    )
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(t.shape)) for name, t in inputs.items()]
    output = helper.make_tensor_value_info("Y", TensorProto.FLOAT, list(tensors.grad.shape))
    graph = helper.make_graph([node], "deform_conv", values, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return model.SerializeToString()


def make() -> Peer:
    import onnx  # noqa: F401 - the model is written with it
    import onnxruntime

    def forward(case, tensors):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(_model(case, tensors), options, providers=["CPUExecutionProvider"])
        # It knows only NCHW, so it gets that without paying for a conversion.
        feed = {"X": tensors.input, "W": tensors.weight, "offset": tensors.offset, "mask": tensors.mask}
        feed = {name: value.contiguous().numpy() for name, value in feed.items() if value is not None}
        return lambda: torch.from_numpy(session.run(None, feed)[0])

    return Peer(NAME, forward, False, ("cpu",), (torch.float32,))
