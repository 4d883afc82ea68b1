"""One module per detection library. Each imports its library, so import only the one that you use:

>>> import resnet_cuda.integrations.detectron2  # doctest: +SKIP

Modules: ``torchvision``, ``detectron2``, ``mmdetection``, ``maskrcnn_benchmark``, ``timm``, ``transformers``.
"""
