"""Chains of certificates and their keys, of one's own."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def write_pair(
    folder: Path, private: object, days: float = 30, passphrase: bytes | None = None
) -> tuple[str, str]:
    """A chain of two and its key."""
    root = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)

    def certificate(name: str, key: object, ca: bool) -> x509.Certificate:
        who = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, name)])
        by = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Root of Ours")])
        usage = [not ca, False, False, False, False, ca, ca, False, False]
        draft = (
            x509.CertificateBuilder(by, who, key.public_key(), x509.random_serial_number())  # type: ignore[attr-defined]
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca, None), True)
            .add_extension(x509.KeyUsage(*usage), True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)  # type: ignore[attr-defined]
        )
        if not ca:
            email = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION])
            draft = draft.add_extension(email, False)
        return draft.sign(root, hashes.SHA256())

    pem = serialization.Encoding.PEM
    chain = [certificate("Our Studio", private, False), certificate("Root of Ours", root, True)]
    (folder / "chain.pem").write_bytes(b"".join(one.public_bytes(pem) for one in chain))
    lock = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    form = serialization.PrivateFormat.PKCS8
    (folder / "own.key").write_bytes(private.private_bytes(pem, form, lock))  # type: ignore[attr-defined]
    return str(folder / "chain.pem"), str(folder / "own.key")
