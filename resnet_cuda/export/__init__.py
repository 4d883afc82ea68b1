"""Networks as ONNX files. What torch.export, TorchScript, fx and torch.compile need is in the layers themselves."""

from resnet_cuda.export.onnx_file import OnnxExport, export_onnx, onnx_translations

__all__ = ["OnnxExport", "export_onnx", "onnx_translations"]
