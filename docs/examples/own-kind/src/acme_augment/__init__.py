"""Augmentations of training batches: the kind `augmentation`, and a dataset that applies one."""
