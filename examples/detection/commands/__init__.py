"""The commands of ``mask_rcnn.py``: train, check, evaluate, predict, and the demo."""
