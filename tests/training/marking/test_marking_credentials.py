"""Signing: what the credentials say, and by whom they are."""

import base64
import errno
import json
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("c2pa")

import av
import c2pa
from certificates import write_pair
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from marked_media import FACTS, pictures, write_media, write_mp4
from PIL import Image

from pipelines.errors import UserError
from training.marking import Keys, State, credentials, keys, sign, verify
from training.marking.verdict import Vouched

MADE, ALTERED, NONE = State.MADE, State.ALTERED, State.NONE


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


def test_where_files_lay_is_not_published(tmp_path: Path, own: Keys) -> None:
    url = "https://me:hunter2@store.org/w/vgg19.pth?sig=5ec2e7"
    facts = {
        "model": {"content": {"vgg19": {"url": url}, "pixels": {"url": ""}}},
        "parents": [{"kind": "index", "path": "/home/alice/client/index.parquet"}],
    }
    path = write_media(tmp_path / "a.mp4")
    sidecar = sign(path, facts=facts, label=None, keys=own)
    statement = verify(path).statement
    assert statement and statement.facts == {
        "model": {"content": {"vgg19": {"url": "vgg19.pth"}, "pixels": {"url": ""}}},
        "parents": [{"kind": "index", "path": "index.parquet"}],
    }
    for data in (path.read_bytes(), sidecar.read_bytes()):
        assert not any(word in data for word in (b"alice", b"hunter2", b"5ec2e7", b"store.org"))


def test_says_that_a_trained_model_made_it(video: Path) -> None:
    with video.open("rb") as file, c2pa.Reader("video/mp4", file) as reader:
        manifest = reader.get_active_manifest()
    actions = next(a for a in manifest["assertions"] if a["label"].startswith("c2pa.actions"))
    (action,) = actions["data"]["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert manifest["title"] == "out.mp4"
    assert manifest["claim_generator_info"][0]["name"] == "Likeness"


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


def test_a_sidecar_of_before_goes_when_the_file_is_made_anew(video: Path, own: Keys) -> None:
    write_mp4(video, pictures(5))
    with pytest.raises(ValueError, match="not JSON compliant"):
        sign(video, facts={"loss": float("nan")}, label=None, keys=own)
    sign(video, facts={}, label=None, keys=own)
    assert verify(video).notes == ()


def test_a_sidecar_of_before_stays_where_its_file_does(
    video: Path, own: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    sidecar = sign(video, facts={}, label=None, keys=own)
    new = write_mp4(video.with_name("new.mp4"), pictures(5))

    def full(*_: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(credentials, "_signed", full)
    with pytest.raises(OSError, match="No space"):
        sign(new, facts={}, label=None, keys=own, into=video)
    assert sidecar.exists() and verify(video).notes == ()


# --- certificates ----------------------------------------------------------------------------


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
