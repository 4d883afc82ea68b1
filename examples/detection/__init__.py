"""Training, evaluation and prediction with torchvision's Mask R-CNN on a resnet_cuda backbone."""
