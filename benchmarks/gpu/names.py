"""Names that result lines and tables share. Nothing here needs torch."""

OURS_AUTOCAST = "resnet_cuda, autocast bfloat16"
OURS_BFLOAT16 = "resnet_cuda, bfloat16"
OURS_FLOAT16 = "resnet_cuda, float16"
OURS_TF32 = "resnet_cuda, float32, TF32 on"
OURS_FLOAT32 = "resnet_cuda, float32, TF32 off"
TORCHVISION_AUTOCAST = "torchvision, autocast bfloat16, TF32 off"
TORCHVISION_AUTOCAST_TF32 = "torchvision, autocast bfloat16, TF32 on"
TORCHVISION_FLOAT32 = "torchvision, float32, TF32 off"
TORCHVISION_TF32 = "torchvision, float32, TF32 on"
MMCV_FLOAT16 = "mmcv, float16"
MMCV_FLOAT32 = "mmcv, float32, TF32 off"

EAGER_AUTOCAST = "torchvision, autocast bfloat16"
EAGER_BFLOAT16 = "torchvision, all bfloat16"
COMPILED_BFLOAT16 = "torchvision, all bfloat16, torch.compile"
EAGER_AUTOCAST_TF32 = "torchvision, autocast bfloat16, TF32 on for its deform_conv2d"

PLAIN, DEFORMABLE = "R-50-FPN", "R-50-DCN"
INFERENCE, TRAINING = "inference", "training step"

DEFORM_CONV, FROZEN_BN, BACKBONE = "deform_conv2d", "frozen_bn_relu", "backbone"
FORWARD, BACKWARD = "forward", "backward"
