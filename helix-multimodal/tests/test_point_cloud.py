"""Clouds of points go through tensors and files, are told from other files, and hostile ones are refused."""

from __future__ import annotations

from helix_kernel.testing.modalities import ModalitySuite
from helix_multimodal.modalities.point_cloud import PointCloud


class TestBarePoints(ModalitySuite):
    def make_modality(self):
        return PointCloud()


class TestPointsWithFeatures(ModalitySuite):
    def make_modality(self):
        return PointCloud(features=["colours", "normals"])


class TestFewPoints(ModalitySuite):
    def make_modality(self):
        return PointCloud(features=["normals"], max_points=9)
