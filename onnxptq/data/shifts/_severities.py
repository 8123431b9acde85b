"""What severities 1 to 5 mean, by the size of the image.

ImageNet-C is made for 224 x 224 pixels and CIFAR-10-C, by the same authors, with milder constants for 32 x 32
(Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019,
arXiv 1903.12261, and its published code). What is mild at 224 pixels leaves little to recognise at 32, where an object
has a fiftieth of the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from onnxptq.data.shifts._apply import Images

# Images whose shorter side is below this are small. It is the size at which the authors' own set for small pictures
# (Tiny ImageNet-C, 64 pixels) takes ImageNet-C's contrast and brightness again.
SMALL_BELOW = 64
IMAGENET_SIDE = 224

Constant = TypeVar("Constant")


@dataclass(frozen=True)
class Severities(Generic[Constant]):
    """The constants of severities 1 to 5 in both sets.

    Attributes:
        cifar: of CIFAR-10-C, for small images.
        imagenet: of ImageNet-C, for all others.
    """

    cifar: tuple[Constant, ...]
    imagenet: tuple[Constant, ...]

    def at(self, severity: int, images: Images) -> Constant:
        """The constant of `severity` for images of this size."""
        constants = self.cifar if _shorter_side(images) < SMALL_BELOW else self.imagenet
        return constants[severity - 1]


def scale(images: Images) -> float:
    """The shorter side in units of ImageNet-C's 224 pixels."""
    return _shorter_side(images) / IMAGENET_SIDE


def length_at(lengths: Severities[float], severity: int, images: Images) -> float:
    """The length of `severity` in pixels: ImageNet-C's in proportion to the image, but never below CIFAR-10-C's.

    The floor keeps severity 1 visible where ImageNet-C's length would be less than a pixel. It is all that small images
    get: their constant is CIFAR-10-C's already, and a part of it is less than the whole.
    """
    return max(lengths.at(severity, images) * scale(images), lengths.cifar[severity - 1])


def _shorter_side(images: Images) -> int:
    height, width = images.shape[1:3]
    return int(min(height, width))
