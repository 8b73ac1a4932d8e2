"""Image segmentation from a folder of images and masks to a measured model."""
