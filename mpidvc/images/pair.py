"""The two images of a correlation and their masks, as one value."""

from __future__ import annotations

from typing import NamedTuple

from mpidvc.images.image import Image

__all__ = ["ImagePair"]


class ImagePair(NamedTuple):
    """Two images, 2D or 3D both, and their masks.

    Attributes
    ----------
    image1, image2 : Image
        Before and after.
    mask1, mask2 : Image or None
        Images of the same shape as theirs; voxels where the mask is 0 are not compared.
    """

    image1: Image
    image2: Image
    mask1: Image | None = None
    mask2: Image | None = None

    @property
    def two_d(self) -> bool:
        """Whether the images are 2D."""
        return self.image1.two_d
