"""A rendered person in front of a camera: appearance, mouth shapes, head, scene. Nothing here knows text or audio."""

from inference.rendering.portrait import Sitter
from inference.rendering.rendered_frame import Shot

__all__ = ["Shot", "Sitter"]
