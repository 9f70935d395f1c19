"""Signed provenance (C2PA) in every result: hashes of the source, the edits, the tool and the consent.

The signing key is made once for each user of this machine. It proves that a file is unchanged since retell wrote it;
it does not prove who that user is, and readers show the signer as unknown unless they trust its certificate.
"""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from retell import __version__
from retell.errors import UserError
from retell.files import complete, write_bytes
from retell.models import home

EDITS = "org.retell.edits"
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeSynthetic"


def _make_key(folder: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.now(UTC) - timedelta(minutes=5)

    def name(common: str):
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "retell"),
                x509.NameAttribute(NameOID.COMMON_NAME, common),
            ]
        )

    def usage(**chosen):
        kinds = "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign encipher_only decipher_only"
        return x509.KeyUsage(**{kind: chosen.get(kind, False) for kind in kinds.split()})

    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def certificate(subject, issuer, public, years):
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=365 * years))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False
            )
        )

    root_name = name("retell root")
    root = (
        certificate(root_name, root_name, root_key.public_key(), 20)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        certificate(name("retell editor"), root_name, leaf_key.public_key(), 10)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = leaf_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_bytes(folder / "root.pem", root.public_bytes(pem))
    write_bytes(folder / "chain.pem", leaf.public_bytes(pem) + root.public_bytes(pem))
    folder.chmod(0o700)
    with complete(folder / "key.pem") as temporary:
        temporary.touch(0o600)
        temporary.write_bytes(secret)


def _signer():
    import c2pa

    folder = home() / "signing"
    if not (folder / "key.pem").is_file():
        _make_key(folder)
    info = c2pa.C2paSignerInfo(
        alg=b"es256",
        sign_cert=(folder / "chain.pem").read_bytes(),
        private_key=(folder / "key.pem").read_bytes(),
        ta_url=None,
    )
    return c2pa.Signer.from_info(info)


def sign(unsigned: Path, result: Path, about: dict) -> None:
    """Write `result`: the file with a signed manifest that holds `about` (source, edits, consent, label)."""
    import c2pa

    manifest = {
        "claim_generator_info": [{"name": "retell", "version": __version__}],
        "title": result.name,
        "assertions": [
            {
                "label": "c2pa.actions",
                "data": {
                    "actions": [
                        {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE},
                        {"action": "c2pa.edited", "parameters": {"description": "spoken words were changed"}},
                    ]
                },
            },
            {"label": EDITS, "data": about | {"tool": f"retell {__version__}"}},
        ],
    }
    with complete(result) as temporary:
        builder = c2pa.Builder(json.dumps(manifest))
        try:
            with open(unsigned, "rb") as source, open(temporary, "w+b") as target:
                builder.sign(_signer(), "video/mp4", source, target)
        except c2pa.C2paError as error:
            todo = f"check the free space, and the key in {home() / 'signing'}; unsigned results are not given out"
            raise UserError("the result must be signed", str(error), todo) from error


def read(path: Path) -> dict:
    """What a file's manifest says: {"intact", "problems", "trusted", "about"}; refuses a file without one."""
    import c2pa

    try:
        with open(path, "rb") as file:
            report = json.loads(c2pa.Reader("video/mp4", file).json())
    except FileNotFoundError:
        raise UserError("a file to check is needed", f"no file {path}", "check the path") from None
    except c2pa.C2paError as error:
        raise UserError(
            "an MP4 with a provenance manifest is needed",
            f"{path} ({error})",
            "nothing is known of its making",
        ) from None
    active = report["manifests"][report["active_manifest"]]
    codes = [s["code"] for s in report.get("validation_status", [])]
    problems = [code for code in codes if code != "signingCredential.untrusted"]
    about = next((a["data"] for a in active["assertions"] if a["label"] == EDITS), {})
    return {
        "intact": not problems,
        "problems": problems,
        "trusted": "signingCredential.untrusted" not in codes,
        "about": about,
    }
