"""Who signs: the user's own certificate and key, or a development pair of this machine.

The development pair is made on first use in $XDG_CONFIG_HOME/likeness/development. It proves
that a file is unchanged since this machine made it, not who owns the machine; nobody else
trusts it. The key of its authority is thrown away once the one certificate is signed.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pipelines.errors import UserError

CERTIFICATE, KEY = "certificate.pem", "key.pem"
YEARS = 10
"""Long, because a signature without a trusted clock is worth nothing once this is over."""
CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
PEM = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True)
class Keys:
    """A certificate chain and the key to its first certificate, which is never shown."""

    chain: str
    """PEM, the signer's certificate first."""
    algorithm: str
    """In C2PA's words."""
    development: bool
    key: bytes = field(repr=False)
    """PEM."""

    def __reduce__(self) -> str:
        raise TypeError("signing keys stay in the process that read them")


def keys(certificate: str | None, key: str | None) -> Keys:
    """The user's own PEM files, or else this machine's development pair, made on first use.

    Raises UserError where they cannot be read, do not belong together or have run out.
    """
    if (certificate is None) != (key is None):
        raise UserError("animate.certificate and animate.key must be given together")
    if certificate is None or key is None:
        folder = _development()
        return _load(folder / CERTIFICATE, folder / KEY, development=True)
    return _load(Path(certificate), Path(key), development=False)


def development_chain() -> str | None:
    """The certificates of this machine's development pair, if it has one: public."""
    try:
        return (development_folder() / CERTIFICATE).read_text()
    except (OSError, UnicodeDecodeError, UserError):
        return None


# --- reading ---------------------------------------------------------------------------------


def _load(certificate: Path, key: Path, development: bool) -> Keys:
    remedy = f"; delete {certificate.parent} to make a new pair" if development else ""
    chain, secret = _read(certificate), _read(key)
    if development and key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UserError(f"{key} can be read by other users: chmod 600 it{remedy}")
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError:
        raise UserError(f"{certificate}: not a chain of PEM certificates{remedy}") from None
    try:
        private = serialization.load_pem_private_key(secret, password=None)
    except TypeError:
        raise UserError(f"{key}: the key has a passphrase; give one without") from None
    except (ValueError, UnsupportedAlgorithm):  # whose words may quote the key
        raise UserError(f"{key}: not a PEM private key{remedy}") from None
    own = certificates[0]
    if own.public_key() != private.public_key():
        raise UserError(
            f"{key} is not the key of the first certificate in {certificate}; the signer's own "
            f"comes first, its authorities after it{remedy}"
        )
    now = datetime.datetime.now(datetime.UTC)
    if not own.not_valid_before_utc <= now < own.not_valid_after_utc:
        raise UserError(
            f"{certificate}: valid from {own.not_valid_before_utc:%Y-%m-%d} to "
            f"{own.not_valid_after_utc:%Y-%m-%d}, not today{remedy}"
        )
    # As C2PA's library wants it, whatever form the file has.
    pem = private.private_bytes(
        PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    algorithm = _algorithm(private, key)
    text = "".join(one.public_bytes(PEM).decode() for one in certificates)
    return Keys(chain=text, algorithm=algorithm, development=development, key=pem)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _algorithm(private: PrivateKeyTypes, path: Path) -> str:
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in CURVES:
        return CURVES[private.curve.name]
    if isinstance(private, rsa.RSAPrivateKey) and private.key_size >= 2048:
        return "ps256"
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise UserError(f"{path}: C2PA takes P-256, P-384, P-521, Ed25519 and RSA of 2048 bits and up")


# --- the development pair --------------------------------------------------------------------


def development_folder() -> Path:
    """Where this machine's pair lives."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        base = Path(given) if Path(given).is_absolute() else Path.home() / ".config"
    except RuntimeError:
        raise UserError("no home folder for the development certificate: set HOME") from None
    return base / "likeness" / "development"


def _development() -> Path:
    """The folder of the pair, which appears whole or not at all, by whichever process is first."""
    folder = development_folder()
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder.parent))  # mode 0700
    except OSError as error:
        raise UserError(
            f"{folder}: no development certificate can be made here ({error.strerror}): set "
            "XDG_CONFIG_HOME to a folder of yours, or animate.certificate and animate.key"
        ) from None
    try:
        chain, key = _make_pair()
        (scratch / CERTIFICATE).write_bytes(chain)
        with os.fdopen(os.open(scratch / KEY, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(key)
        with contextlib.suppress(OSError):  # not empty: another process was first
            scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _make_pair() -> tuple[bytes, bytes]:
    """A chain of two, since C2PA takes no certificate that vouches for itself; ES256."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    # So that people can tell machines apart, without a host or a user name.
    machine = os.urandom(4).hex()
    root_name = _name(f"Likeness development authority {machine}")
    root = (
        _draft(root_name, root_name, root_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    own = (
        _draft(_name(f"Likeness development {machine}"), root_name, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
            critical=False,
        )
        .sign(root_key, hashes.SHA256())
    )
    secret = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return own.public_bytes(PEM) + root.public_bytes(PEM), secret


def _name(common: str) -> x509.Name:
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Likeness development")
    return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _draft(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    # A day of grace for clocks that disagree.
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365 * YEARS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
