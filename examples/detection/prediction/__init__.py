"""Detections for image files, and pictures of them."""
