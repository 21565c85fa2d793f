"""Few-shot neural talking heads on the shards: Zakharov et al. 2019, arXiv 1905.08233."""

import os
import sys

# Before torch is loaded: its threads sleep where they wait for each other. By default they spin,
# and beside any other work on the machine each step then waits for a thread that cannot run.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if sys.argv[:1] == ["-m"]:  # a command of ours; a bare GPU box imports, and has no `pipelines`
    import pipelines  # noqa: F401 - for its `end_quietly`
