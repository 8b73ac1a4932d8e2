"""Image classifiers that the segmentation networks start from."""
