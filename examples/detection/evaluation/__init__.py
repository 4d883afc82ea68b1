"""COCO's metrics and what explains them."""
