"""A rendered person in front of a camera: appearance, mouth shapes, head, scene. Independent of text and audio."""

from inference.rendering.portrait import Portrait
from inference.rendering.rendered_frame import RenderedFrame

__all__ = ["Portrait", "RenderedFrame"]
