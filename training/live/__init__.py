"""Portraits that move as a camera sees its driver move: `training.animate --live`."""
