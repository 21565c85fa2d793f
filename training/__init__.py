"""Few-shot neural talking heads on the shards: Zakharov et al. 2019, arXiv 1905.08233."""
