"""One module per detection library; each imports its library, so import the one that you use:

>>> import resnet_cuda.integrations.detectron2  # doctest: +SKIP

Modules: ``torchvision``, ``detectron2``, ``mmdetection``, ``maskrcnn_benchmark``, ``timm``, ``transformers``.
"""
