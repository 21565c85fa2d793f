"""Rebuild a talking-head dataset: catalog, download, crop, landmarks, shard, card."""

from pipelines.interrupt import end_quietly

end_quietly()
