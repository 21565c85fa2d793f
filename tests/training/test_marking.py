import base64
import io
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("c2pa")

import av
import c2pa
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from marked_media import FACTS, encode_again, flip, pictures, remux, write_media, write_mp4
from PIL import Image
from test_marking_keys import write_pair

from pipelines.errors import UserError
from training.marking import Keys, State, Verdict, draw_label, keys, sidecar_path, sign, verify
from training.marking.credentials import OFFLINE
from training.marking.verdict import Vouched

MADE, ALTERED, NONE = State.MADE, State.ALTERED, State.NONE


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def own() -> Keys:
    return keys(None, None)


@pytest.fixture
def video(tmp_path: Path, own: Keys) -> Path:
    path = write_mp4(tmp_path / "out.mp4", draw_label(pictures(), "AI-generated"))
    sign(path, facts=FACTS, label="AI-generated", keys=own)
    return path


def alone(video: Path) -> Path:
    """The file as somebody else gets it: another name, no sidecar."""
    return Path(shutil.copy(video, video.with_name("received.mp4")))


# --- whole -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a.jpg", "a.jpeg", "a.gif", "A.PNG"])
def test_kinds_of_files(tmp_path: Path, own: Keys, name: str) -> None:
    path = write_media(tmp_path / name)
    before = path.stat().st_size
    sidecar = sign(path, facts=FACTS, label="AI-generated", keys=own)
    verdict = verify(path)
    assert (verdict.state, verdict.why, verdict.notes) == (MADE, (), ())
    assert verdict.statement
    assert verdict.statement.facts == FACTS
    assert verdict.statement.label == "AI-generated"
    assert verdict.statement.signer.vouched is Vouched.HERE
    assert not verdict.from_sidecar
    assert 0 < path.stat().st_size - before < 8192
    told = json.loads(sidecar.read_text())
    assert told["files"] == {name: verdict.sha256}
    assert told["facts"] == FACTS
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["config", name, sidecar.name])
    if path.suffix.lower() == ".mp4":
        with av.open(str(path)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 12
    else:
        with Image.open(path) as picture:
            assert picture.size == (64, 64)


def test_says_that_a_trained_model_made_it(video: Path) -> None:
    with video.open("rb") as file, c2pa.Reader("video/mp4", file) as reader:
        manifest = reader.get_active_manifest()
    actions = next(a for a in manifest["assertions"] if a["label"].startswith("c2pa.actions"))
    (action,) = actions["data"]["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert manifest["title"] == "out.mp4"
    assert manifest["claim_generator_info"][0]["name"] == "Likeness"


def test_a_renamed_file_without_its_sidecar(video: Path) -> None:
    verdict = verify(alone(video).rename(video.with_name("renamed.bin")))
    assert (verdict.state, verdict.notes) == (MADE, ("there is no sidecar of it",))


def test_renamed_together_with_its_sidecar(video: Path) -> None:
    renamed = alone(video)
    shutil.copy(sidecar_path(video), sidecar_path(renamed))
    assert verify(renamed).notes == ()
    flip(renamed, -30)
    assert verify(renamed).state is ALTERED


def test_label_turned_off_is_told(tmp_path: Path, own: Keys) -> None:
    path = write_mp4(tmp_path / "plain.mp4")
    sidecar = sign(path, facts={}, label=None, keys=own, title="A title")
    statement = verify(path).statement
    assert statement and statement.label is None
    assert json.loads(sidecar.read_text())["label"] is None


def test_under_a_final_name_nothing_unsigned_is_ever_seen(tmp_path: Path, own: Keys) -> None:
    scratch = write_mp4(tmp_path / "scratch.mp4")
    sidecar = sign(scratch, facts={}, label=None, keys=own, into=tmp_path / "final.mp4")
    assert sidecar == tmp_path / "final.mp4.likeness.json"
    assert not scratch.exists()
    assert verify(tmp_path / "final.mp4").state is MADE


def test_signed_once_more(video: Path, own: Keys) -> None:
    sign(video, facts={"second": 2}, label=None, keys=own)
    verdict = verify(video)
    assert verdict.state is MADE
    assert verdict.statement and verdict.statement.facts == {"second": 2}


def test_a_folder_of_frames(tmp_path: Path, own: Keys) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for at, picture in enumerate(pictures(3)):
        Image.fromarray(picture).save(folder / f"{at:06d}.png")
    (folder / "notes.txt").write_text("not a picture")
    (tmp_path / "scratch").mkdir()
    folder = folder.rename(tmp_path / "scratch" / "half")
    sidecar = sign(folder, facts=FACTS, label="AI", keys=own, into=tmp_path / "frames")
    folder = tmp_path / "frames"
    assert sidecar == tmp_path / "frames.likeness.json"
    assert list(json.loads(sidecar.read_text())["files"]) == [f"{n:06d}.png" for n in range(3)]
    frames = sorted(folder.glob("*.png"))
    assert [(v.state, v.notes) for v in map(verify, frames)] == [(MADE, ())] * 3
    Image.open(frames[2]).convert("RGB").save(frames[2])
    verdict = verify(frames[2])
    assert (verdict.state, verdict.from_sidecar) == (ALTERED, True)
    assert verdict.statement and verdict.statement.facts == FACTS
    assert verify(folder / "notes.txt").state is NONE
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no pictures to sign"):
        sign(tmp_path / "none", facts={}, label=None, keys=own)


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


def test_a_sidecar_of_before_goes_when_the_file_is_made_anew(video: Path, own: Keys) -> None:
    write_mp4(video, pictures(5))
    with pytest.raises(ValueError, match="not JSON compliant"):
        sign(video, facts={"loss": float("nan")}, label=None, keys=own)
    sign(video, facts={}, label=None, keys=own)
    assert verify(video).notes == ()


# --- who signed ------------------------------------------------------------------------------


def raw_secret(private: Any) -> bytes:
    """The number that must not get out."""
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return private.private_bytes_raw()
    numbers = private.private_numbers()
    secret: int = numbers.p if isinstance(private, rsa.RSAPrivateKey) else numbers.private_value
    return secret.to_bytes((secret.bit_length() + 7) // 8, "big")


@pytest.mark.parametrize(
    "private",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
)
def test_a_certificate_of_ones_own(tmp_path: Path, private: object) -> None:
    chain, key = write_pair(tmp_path, private)
    path = write_mp4(tmp_path / "own.mp4")
    sidecar = sign(path, facts={}, label=None, keys=keys(chain, key))
    unknown, trusted = verify(path).statement, verify(path, Path(chain).read_text()).statement
    assert unknown and trusted
    assert (unknown.signer.name, unknown.signer.vouched) == ("Our Studio", Vouched.UNKNOWN)
    assert trusted.signer.vouched is Vouched.TRUSTED
    secret = raw_secret(private)
    for made in (
        path.read_bytes(),
        base64.b64decode(json.loads(sidecar.read_text())["credentials"]),
    ):
        assert secret not in made
    assert "PRIVATE" not in sidecar.read_text()


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


def test_a_certificate_that_runs_out(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()), days=2.5 / 86400)
    path = write_mp4(tmp_path / "old.mp4")
    sign(path, facts=FACTS, label="AI", keys=keys(*pair))
    time.sleep(3.6)  # the clock of certificates counts whole seconds
    verdict = verify(path)
    assert verdict.state is MADE
    assert verdict.statement and verdict.statement.signer.expired
    with pytest.raises(UserError, match="not today"):
        keys(*pair)


def test_a_certificate_that_is_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cryptography import x509

    web = x509.ExtendedKeyUsageOID.SERVER_AUTH
    monkeypatch.setattr(x509.ExtendedKeyUsageOID, "EMAIL_PROTECTION", web)
    pair = keys(*write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1())))
    path = write_mp4(tmp_path / "a.mp4")
    before = path.read_bytes()
    with pytest.raises(UserError, match="not fit for content credentials"):
        sign(path, facts={}, label=None, keys=pair)
    assert path.read_bytes() == before


# --- what cannot be signed -------------------------------------------------------------------


def test_files_that_cannot_be_signed(tmp_path: Path, own: Keys) -> None:
    text = tmp_path / "a.txt"
    text.write_text("words")
    with pytest.raises(UserError, match=r"credentials go into \.mp4"):
        sign(text, facts={}, label=None, keys=own)
    broken = tmp_path / "a.mp4"
    broken.write_text("words")
    with pytest.raises(UserError, match="cannot be signed"):
        sign(broken, facts={}, label=None, keys=own)
    assert broken.read_text() == "words"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "a.txt", "config"]
    with pytest.raises(FileNotFoundError):
        sign(tmp_path / "none.mp4", facts={}, label=None, keys=own)
