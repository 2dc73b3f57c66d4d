"""Generated street scenes with the class of every pixel."""

from dinoidd.data.scenes.scene import Scene, generate_scene, size_problem

__all__ = ["Scene", "generate_scene", "size_problem"]
