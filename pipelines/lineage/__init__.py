"""Lineage: from a file back to the clips and links that made it, and from a clip forward."""
