import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("c2pa")
pytest.importorskip("cryptography")

from certificates import write_pair
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from pipelines.errors import UserError
from training.marking import keys
from training.marking.keys import development_chain, development_folder


def test_the_pair_is_made_once_and_private(own_home: Path) -> None:
    assert development_chain() is None
    first = keys(None, None)
    folder = own_home / "likeness" / "development"
    assert folder == development_folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    assert [p.name for p in folder.parent.iterdir()] == ["development"]
    assert keys(None, None) == first
    assert first.development
    assert first.algorithm == "es256"
    assert first.chain.count("BEGIN CERTIFICATE") == 2
    assert development_chain() == first.chain


def test_the_chain_is_what_c2pa_asks_for() -> None:
    own, root = x509.load_pem_x509_certificates(keys(None, None).chain.encode())
    own.verify_directly_issued_by(root)
    usage = own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [o.dotted_string for o in usage] == ["1.3.6.1.5.5.7.3.4"]
    assert not own.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    # Nothing tells whose machine it is.
    assert os.uname().nodename not in own.subject.rfc4514_string()


def test_processes_that_start_at_once_agree(own_home: Path) -> None:
    code = (
        "import sys; from training.marking import keys\n"
        "print('ready', flush=True); sys.stdin.read(); print(keys(None, None).chain)"
    )
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for maker in makers:
        assert maker.stdout is not None and maker.stdout.readline() == "ready\n"
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.close()
        maker.stdin = None  # else `communicate` would flush it
    chains = [maker.communicate(timeout=60)[0] for maker in makers]
    assert [maker.returncode for maker in makers] == [0] * 4
    assert len(set(chains)) == 1 and "BEGIN CERTIFICATE" in chains[0]
    assert [p.name for p in (own_home / "likeness").iterdir()] == ["development"]


def test_the_key_is_not_shown_nor_sent() -> None:
    own = keys(None, None)
    secret = own.key.decode().splitlines()[1]
    assert secret not in repr(own)
    assert "PRIVATE" not in f"{own} {own!r}"
    with pytest.raises(TypeError, match="stay in the process"):
        pickle.dumps(own)


def test_a_key_that_others_can_read(own_home: Path) -> None:
    keys(None, None)
    (own_home / "likeness/development/key.pem").chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        keys(None, None)


def test_half_a_pair(own_home: Path) -> None:
    keys(None, None)
    (own_home / "likeness/development/certificate.pem").write_text("")
    with pytest.raises(UserError, match=r"delete .*development to make a new pair"):
        keys(None, None)
    (own_home / "likeness/development/certificate.pem").unlink()
    with pytest.raises(UserError, match="cannot be read: No such file"):
        keys(None, None)


def test_no_place_for_it(own_home: Path) -> None:
    own_home.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="XDG_CONFIG_HOME"):
        keys(None, None)


# --- the user's own --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("private", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "es256"),
        (ec.generate_private_key(ec.SECP384R1()), "es384"),
        (ed25519.Ed25519PrivateKey.generate(), "ed25519"),
        (rsa.generate_private_key(65537, 2048), "ps256"),
    ],
)
def test_kinds_of_keys(tmp_path: Path, private: object, algorithm: str) -> None:
    own = keys(*write_pair(tmp_path, private))
    assert (own.algorithm, own.development) == (algorithm, False)


def test_pairs_that_cannot_sign(tmp_path: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    chain, key = write_pair(tmp_path, private)
    other = tmp_path / "other"
    other.mkdir()
    _, stranger = write_pair(other, ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(UserError, match="is not the key of the first certificate"):
        keys(chain, stranger)
    with pytest.raises(UserError, match="not a chain of PEM"):
        keys(key, key)
    with pytest.raises(UserError, match="not a PEM private key"):
        keys(chain, chain)
    with pytest.raises(UserError, match="given together"):
        keys(chain, None)
    with pytest.raises(UserError, match="cannot be read"):
        keys(chain, str(tmp_path / "none"))
    with pytest.raises(UserError, match="not today"):
        keys(*write_pair(other, private, days=-1))
    with pytest.raises(UserError, match="passphrase"):
        keys(*write_pair(other, private, passphrase=b"hush"))
    with pytest.raises(UserError, match="C2PA takes"):
        keys(*write_pair(other, ec.generate_private_key(ec.SECP256K1())))


def test_errors_do_not_quote_the_key(tmp_path: Path) -> None:
    chain, key = write_pair(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    text = Path(key).read_text()
    secret = text.splitlines()[1]
    Path(key).write_text(text.replace("PRIVATE KEY", "STRANGE KEY"))
    with pytest.raises(UserError) as caught:
        keys(chain, key)
    assert secret[:12] not in str(caught.value)
    assert caught.value.__suppress_context__
