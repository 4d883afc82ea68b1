"""torchvision's detectors on a resnet_cuda backbone."""
