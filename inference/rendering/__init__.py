"""A rendered person in front of a camera: appearance, mouth shapes, head, scene. Nothing here knows text or audio."""

from inference.rendering.portrait import Portrait
from inference.rendering.rendered_frame import RenderedFrame

__all__ = ["Portrait", "RenderedFrame"]
