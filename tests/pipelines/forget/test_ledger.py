"""The ledger of what held the forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
from leaver import LEAVER, asked, index_of

from pipelines import storage
from pipelines.errors import UserError
from pipelines.forget import held, ledger
from pipelines.forget.whose import whose
from pipelines.params import Params


def test_the_ledger_names_nobody(worked: Params, tmp_path: Path) -> None:
    Path(worked.paths.data).mkdir()
    index = index_of(Path(worked.paths.data, "index.parquet"), LEAVER)
    digest = storage.sha256(index)
    inforce = asked(worked, f"person,{LEAVER}", "person,other99")
    held.note(worked, tmp_path, inforce, whose(worked, inforce), [(inforce[0], 3, "ff")])
    text = Path(ledger.url(worked)).read_text()
    assert LEAVER not in text
    book = ledger.read(worked)
    assert book[inforce[0].digest].datasets == {(digest, "")}
    assert book[inforce[0].digest].files == {(3, "ff")}
    assert book[inforce[1].digest] == ledger.Held(without={digest})
    index.unlink()
    held.note(worked, tmp_path, inforce[:1], whose(worked, inforce), [])
    assert ledger.read(worked) == {inforce[0].digest: book[inforce[0].digest]}
    assert book[inforce[0].digest].names == 1, "a video that nobody else needs"
    # Whoever was in that dataset can be told for ever, though no index of it is left.
    assert ledger.read(worked).people == {digest: {ledger.person(LEAVER): ""}}
    assert ledger.read(worked).was_in(inforce[1], digest) is False
    assert ledger.read(worked).was_in(inforce[1], "ee" * 32) is None
    Path(ledger.url(worked)).write_text("{")
    with pytest.raises(UserError, match="git checkout"):
        ledger.read(worked)
