"""The verdict on files: whole, altered, or of another's making."""

import base64
import io
import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("c2pa")

import c2pa
from certificates import write_pair
from cryptography.hazmat.primitives.asymmetric import ec
from marked_media import FACTS, encode_again, flip, pictures, remux, write_media, write_mp4

from pipelines.errors import UserError
from training.marking import Keys, State, Verdict, keys, sidecar_path, sign, verify
from training.marking.credentials import OFFLINE
from training.marking.verdict import Vouched

MADE, ALTERED, NONE = State.MADE, State.ALTERED, State.NONE


def alone(video: Path) -> Path:
    """The file as somebody else gets it: another name, no sidecar."""
    return Path(shutil.copy(video, video.with_name("received.mp4")))


def test_a_renamed_file_without_its_sidecar(video: Path) -> None:
    verdict = verify(alone(video).rename(video.with_name("renamed.bin")))
    assert (verdict.state, verdict.notes) == (MADE, ("there is no sidecar of it",))


def test_renamed_together_with_its_sidecar(video: Path) -> None:
    renamed = alone(video)
    shutil.copy(sidecar_path(video), sidecar_path(renamed))
    assert verify(renamed).notes == ()
    flip(renamed, -30)
    assert verify(renamed).state is ALTERED


def test_another_machine_does_not_know_the_development_certificate(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for home in ("empty", "other"):
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / home))
        if home == "other":
            keys(None, None)
        verdict = verify(video)
        assert verdict.state is MADE
        assert verdict.statement and verdict.statement.signer.vouched is Vouched.UNKNOWN
    assert not (tmp_path / "empty").exists(), "looking makes no certificate"


# --- altered ---------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [encode_again, remux])
def test_encoded_again(video: Path, change: object) -> None:
    with_sidecar = change(alone(video), video)  # type: ignore[operator]
    verdict = verify(with_sidecar)
    assert (verdict.state, verdict.from_sidecar) == (ALTERED, True)
    assert verdict.why == ("its credentials are gone: it was encoded again, or edited",)
    assert verdict.statement and verdict.statement.facts == FACTS
    sidecar_path(video).unlink()
    assert verify(with_sidecar) == Verdict(
        video, NONE, (), (), None, from_sidecar=False, sha256=verdict.sha256
    )


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a.jpg", "a.gif"])
def test_any_flipped_byte_is_seen_beside_the_sidecar(tmp_path: Path, own: Keys, name: str) -> None:
    path = write_media(tmp_path / name)
    sign(path, facts={"n": 1}, label="AI", keys=own)
    whole = path.read_bytes()
    for at in range(0, len(whole), len(whole) // 60):
        flip(path, at)
        assert verify(path).state is ALTERED, f"byte {at} of {len(whole)}"
        path.write_bytes(whole)
    assert verify(path).state is MADE


def test_one_byte_of_the_pictures(video: Path) -> None:
    received = alone(video)
    flip(received, received.read_bytes().index(b"mdat") + 500)
    verdict = verify(received)
    assert (verdict.state, verdict.why) == (ALTERED, ("its content is not what was signed",))
    assert verdict.statement and verdict.statement.holds


@pytest.mark.parametrize("word", [b"mona_lisa", b"trainedAlgorithmicMedia", b'"tiny'])
def test_one_byte_of_the_statement(video: Path, word: bytes) -> None:
    received = alone(video)
    flip(received, received.read_bytes().index(word.replace(b'"', b"")) + 3)
    verdict = verify(received)
    assert (verdict.state, verdict.why) == (
        ALTERED,
        ("a statement in its credentials was changed",),
    )
    assert verdict.statement and not verdict.statement.holds
    # Beside its sidecar, what was signed is told in place of what now stands there.
    shutil.copy(received, video)
    verdict = verify(video)
    assert verdict.from_sidecar
    assert verdict.statement and verdict.statement.facts == FACTS


def test_credentials_that_no_longer_parse(video: Path) -> None:
    received = alone(video)
    flip(received, received.read_bytes().index(b"org.likeness.lineage"))
    verdict = verify(received)
    assert verdict.state is ALTERED
    assert "what is left of its credentials" in verdict.why[0]


def test_bytes_that_c2pa_does_not_cover(video: Path) -> None:
    received = alone(video)
    at = video.read_bytes().index(b"isom") + 5  # in ftyp
    flip(received, at)
    assert verify(received).state is MADE, "known: C2PA leaves ftyp out"
    flip(video, at)
    assert verify(video).why == (
        "bytes that its credentials do not cover differ from the signed file",
    )


@pytest.mark.parametrize(("keep", "left"), [(0.97, ALTERED), (0.5, ALTERED), (0.001, NONE)])
def test_cut_short(video: Path, keep: float, left: State) -> None:
    received, data = alone(video), video.read_bytes()
    for path in (received, video):
        path.write_bytes(data[: int(len(data) * keep)])
    assert verify(received).state is left
    assert verify(video).state is ALTERED


def test_something_appended(video: Path) -> None:
    received = alone(video)
    received.write_bytes(received.read_bytes() + b"\x00\x00\x00\x10freeAAAAAAAA")
    shutil.copy(received, video)
    assert verify(video).state is ALTERED


def test_taken_up_by_another_tool(video: Path, tmp_path: Path) -> None:
    edited = foreign(tmp_path, video)
    verdict = verify(edited)
    assert (verdict.state, verdict.why) == (
        ALTERED,
        ("Editor took it up and signed it again",),
    )
    assert verdict.statement and verdict.statement.facts == FACTS


def foreign(tmp_path: Path, parent: Path | None = None) -> Path:
    """A video with credentials of another tool, which may have begun with one of ours."""
    folder = tmp_path / "foreign"
    folder.mkdir(exist_ok=True)
    other = keys(*write_pair(folder, ec.generate_private_key(ec.SECP256R1())))
    action = {"action": "c2pa.opened" if parent else "c2pa.created"}
    if parent:
        action["parameters"] = {"ingredientIds": ["first"]}  # type: ignore[assignment]
    else:
        action["digitalSourceType"] = "http://c2pa.org/digitalsourcetype/empty"
    manifest = {
        "claim_generator_info": [{"name": "Editor", "version": "1"}],
        "title": "A Likeness of somebody",
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
    }
    source = write_mp4(folder / "source.mp4", pictures(8))
    info = c2pa.C2paSignerInfo("es256", other.chain.encode(), other.key, None)
    builder = c2pa.Builder(json.dumps(manifest), c2pa.Context.from_dict(OFFLINE))
    if parent:
        words = {"title": "first", "relationship": "parentOf", "label": "first"}
        builder.add_ingredient(json.dumps(words), "video/mp4", io.BytesIO(parent.read_bytes()))
    out = folder / "edited.mp4"
    with source.open("rb") as file, out.open("w+b") as sink:
        builder.sign(c2pa.Signer.from_info(info), "video/mp4", file, sink)
    return out


# --- none ------------------------------------------------------------------------------------


def test_credentials_of_another_tool(tmp_path: Path) -> None:
    verdict = verify(foreign(tmp_path))
    assert (verdict.state, verdict.why) == (
        NONE,
        ("its credentials are those of Editor, not of Likeness",),
    )


def test_files_without_any(tmp_path: Path) -> None:
    assert verify(write_mp4(tmp_path / "plain.mp4")).state is NONE
    text = tmp_path / "text.mp4"
    text.write_text("Likeness signs with c2pa, org.likeness.lineage\n" * 9)
    assert verify(text).state is NONE
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert (verify(empty).state, verify(empty).why) == (NONE, ("the file is empty",))
    cut = write_media(tmp_path / "cut.png")
    cut.write_bytes(cut.read_bytes()[:500])
    assert verify(cut).state is NONE
    for name, words in (("none.mp4", "no such file"), (".", "not a file")):
        with pytest.raises(UserError, match=words):
            verify(tmp_path / name)


# --- the sidecar -----------------------------------------------------------------------------


def test_a_sidecar_of_another_file(video: Path, tmp_path: Path, own: Keys) -> None:
    other = write_mp4(tmp_path / "other.mp4", pictures(5))
    sign(other, facts={}, label=None, keys=own)
    shutil.copy(sidecar_path(other), sidecar_path(video))
    verdict = verify(video)
    assert (verdict.state, verdict.notes) == (
        MADE,
        ("the sidecar beside it is of another file",),
    )
    plain = write_mp4(tmp_path / "plain.mp4")
    shutil.copy(sidecar_path(other), sidecar_path(plain))
    verdict = verify(plain)
    assert verdict.state is ALTERED
    assert verdict.notes == ("unless the sidecar beside it is of another file",)


def test_an_edited_sidecar(video: Path) -> None:
    sidecar = sidecar_path(video)
    told = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps(told | {"facts": {"model": "of somebody else"}}))
    verdict = verify(video)
    assert verdict.state is MADE
    assert "was edited" in verdict.notes[0]
    assert verdict.statement and verdict.statement.facts == FACTS
    store = bytearray(base64.b64decode(told["credentials"]))
    store[store.index(b"mona_lisa")] ^= 1
    sidecar.write_text(json.dumps(told | {"credentials": base64.b64encode(store).decode()}))
    assert "the credentials in it were changed" in verify(video).notes[0]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"format": "likeness-sidecar-1"}', "[" * 100_000, "\x00\xff"]
)
def test_a_damaged_sidecar(video: Path, text: str) -> None:
    sidecar_path(video).write_text(text)
    verdict = verify(video)
    assert verdict.state is MADE
    assert verdict.notes[0].startswith("the sidecar beside it cannot be used")
