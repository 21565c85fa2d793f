"""Rebuild a talking-head dataset: catalog, download, crop, landmarks, shard, card."""
