"""Export of networks to ONNX files. Support for torch.export, TorchScript, fx and torch.compile is in the layers."""

from resnet_cuda.export.onnx_file import OnnxExport, export_onnx, onnx_translations

__all__ = ["OnnxExport", "export_onnx", "onnx_translations"]
