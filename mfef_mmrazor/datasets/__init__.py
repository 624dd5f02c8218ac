from .digits import Digits
from .image_folder import ImageFolder
from .in_memory import InMemory
from .loading import BrokenImageError, LoadIntactImage
from .tiny_imagenet import TinyImageNet

__all__ = [
    'BrokenImageError',
    'Digits',
    'ImageFolder',
    'InMemory',
    'LoadIntactImage',
    'TinyImageNet',
]
