"""The setting of the smallest training that is one: 32 pixels, compared as they are."""

from __future__ import annotations

from typing import Any

NETWORKS: dict[str, Any] = {
    "image_size": 32,
    "min_channels": 4,
    "max_channels": 16,
    "generator_levels": 3,
    "residual_blocks": 1,
}
CONTENT: dict[str, Any] = {"pixels": {"weight": 100.0}}
SETTING: dict[str, Any] = {"batch": 2, "k": 2, "content": CONTENT, "networks": NETWORKS}
