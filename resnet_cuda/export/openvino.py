"""Maps DeformConv of ONNX files to OpenVINO's DeformableConvolution, since OpenVINO's ONNX importer does not."""

from __future__ import annotations

from typing import Any


def deform_conv_extension() -> Any:
    """An extension for ``openvino.Core().add_extension``, with which ``read_model`` reads deformable networks.

    OpenVINO has had the operator since 2021 (opset 8, with a mask); only its ONNX importer has no rule for it.
    Positions, groups and zeros outside the image are those of :func:`resnet_cuda.ops.deform_conv2d`.

    Raises:
        ImportError: if openvino is not installed.
    """
    try:
        from openvino import opset8  # type: ignore[import-not-found, unused-ignore]
        from openvino.frontend.onnx import ConversionExtension  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise ImportError(f"deform_conv_extension needs openvino ({error}): pip install openvino") from error

    def convert(node: Any) -> Any:
        given = [node.get_input(index) for index in range(node.get_input_size())]
        data, weight, offset, *optional = [None if _is_left_out(it) else it for it in given]
        bias, mask = (*optional, None, None)[:2]
        pads = node.get_attribute("pads")
        arguments = [data, offset, weight, node.get_attribute("strides"), pads[:2], pads[2:]]
        arguments += [node.get_attribute("dilations")]
        groups = {"group": node.get_attribute("group"), "deformable_group": node.get_attribute("offset_group")}
        # bilinear_interpolation_pad: a position less than a pixel outside the image has part of the border's value.
        result = opset8.deformable_convolution(*arguments, mask=mask, bilinear_interpolation_pad=True, **groups)
        if bias is not None:
            shape = opset8.constant([1, -1, 1, 1], dtype="int64")
            result = opset8.add(result, opset8.reshape(bias, shape, special_zero=False))
        return result.outputs()

    return ConversionExtension("DeformConv", convert)


def _is_left_out(value: Any) -> bool:
    """Whether an optional input, such as the bias before a mask, is not there."""
    return value is None or value.get_node().get_type_name() == "NullNode"
