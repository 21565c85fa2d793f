"""Rebuild a talking-head dataset: catalog, download, crop, landmarks, shard, card."""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m pipelines.x`, still before that module is imported
    from pipelines.interrupt import end_quietly

    end_quietly()
