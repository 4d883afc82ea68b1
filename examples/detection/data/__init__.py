"""Data sets, image files, augmentation, batches."""
