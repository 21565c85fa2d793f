"""Marking: what a model made says so, visibly and under a signature."""

from training.marking.credentials import sidecar_path, sign
from training.marking.keys import Keys, keys
from training.marking.label import draw_label
from training.marking.verdict import Signer, State, Statement, Verdict, verify

__all__ = [
    "Keys",
    "Signer",
    "State",
    "Statement",
    "Verdict",
    "draw_label",
    "keys",
    "sidecar_path",
    "sign",
    "verify",
]
