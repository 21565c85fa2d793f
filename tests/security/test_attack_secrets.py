"""Secrets of params.yaml and of the environment: in nothing that a run leaves or says."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hostile_site import HostileSite
from hypothesis import given
from hypothesis import strategies as st

from pipelines import engine
from pipelines.errors import clean_detail, redact
from pipelines.params import Params
from pipelines.schemas import CATALOG

REPO = Path(__file__).resolve().parents[2]
SECRETS = {
    "proxy password": "Zq-proxy-password-qZ",
    "signature": "Zq-signature-qZ",
    "mirror password": "Zq-mirror-password-qZ",
    "site token": "Zq-site-token-qZ",
    "cookie": "Zq-cookie-qZ",
    "cookie path": "Zq-cookie-file-qZ",
    "s3 key": "Zq-s3-key-qZ",
    "site password": "Zq-site-password-qZ",
}


def found_in(folder: Path, but: set[Path]) -> list[str]:
    """Which secrets lie anywhere below a folder, in names, in bytes, or packed."""
    seen = []
    for path in sorted(folder.rglob("*")):
        if path in but or not path.is_file():
            continue
        data = str(path.relative_to(folder)).encode() + path.read_bytes()
        if path.suffix == ".parquet":
            data += str(pq.read_table(path).to_pylist()).encode()
            data += str(pq.read_schema(path).metadata).encode()
        elif path.suffix == ".arrow":
            import pyarrow as pa

            data += str(pa.ipc.open_file(path.read_bytes()).read_all().to_pylist()).encode()
        for name, secret in SECRETS.items():
            if secret.encode() in data:
                seen.append(f"{name} in {path.relative_to(folder)}")
    return seen


@pytest.fixture
def laid_out(
    make_params: Callable[..., Params],
    write_manifest: Callable[..., None],
    params_file: Callable[[Params], str],
    tmp_path: Path,
) -> Callable[..., tuple[set[Path], str]]:
    """A catalog of three videos and params full of secrets; the files that hold them."""

    def make(site: HostileSite, **download: Any) -> tuple[set[Path], str]:
        cookies = tmp_path / f"{SECRETS['cookie path']}.txt"
        line = f"127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\t{SECRETS['cookie']}\n"
        cookies.write_text("# Netscape HTTP Cookie File\n" + line)
        host = site.url.removeprefix("http://")
        settings = {
            "url": f"{site.url}/watch/{{video_id}}?access_token={SECRETS['site token']}",
            "mirror": f"http://me:{SECRETS['mirror password']}@{host}/mirror/{{video_id}}"
            f"?X-Amz-Signature={SECRETS['signature']}&AWSAccessKeyId={SECRETS['s3 key']}",
            "cookies": str(cookies),
            "yt_dlp": {"username": "me", "password": SECRETS["site password"]},
            "retries": 0,
            "per_minute": 1e6,
            "max_failed": 1.0,
        } | download
        options = {"direct_running_mode": "in_memory"}
        params = make_params(download=settings, beam={"options": options})
        rows = []
        for video in ("good", "gone", "html"):
            row = {"key": f"p_{video}_1", "source": "s", "person": "p", "video": video}
            row |= {"utterance": "1", "split": "train", "shard": "s-train-00000"}
            rows.append(row | {"status": "ok", "detail": "", "crop_ready": False})
        write_manifest(params, "catalog", CATALOG, rows)
        return {tmp_path / "params.yaml", cookies}, params_file(params)

    return make


def stage(params: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The real command, in a process of its own."""
    env = os.environ | {"AWS_SECRET_ACCESS_KEY": SECRETS["s3 key"], "PYTHONPATH": str(REPO)}
    return subprocess.run(
        [sys.executable, "-m", "pipelines.download", "--params", params, *words],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [n for n, secret in SECRETS.items() if secret in done.stdout + done.stderr]


@pytest.mark.parametrize("way", ["site and mirror", "proxy"])
def test_a_run_with_secrets_leaves_and_says_none(
    laid_out: Any, tmp_path: Path, make_video: Callable[..., Path], way: str
) -> None:
    video = make_video(tmp_path / "made" / "v.mp4", frames=25, side=128).read_bytes()

    def give(handler: Any) -> None:
        if "mirror" in handler.path:
            handler.send(403, b"")
        else:
            handler.send(200, video, Content_Type="video/mp4")

    with HostileSite() as site:
        # The handler routes by the last part of the path, query and all.
        token = f"?access_token={SECRETS['site token']}"
        page = b"<!doctype html><html>not here</html>"
        site.answers[f"good{token}"] = give
        site.answers[f"html{token}"] = lambda h: h.send(200, page, Content_Type="text/html")
        proxy = f"http://me:{SECRETS['proxy password']}@127.0.0.1:9"
        more = {"proxy": proxy} if way == "proxy" else {}
        holders, params = laid_out(site, **more)
        done = stage(params, tmp_path)
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "data" / "downloads.parquet").to_pylist()
    statuses = [row["status"] for row in rows]
    if way == "proxy":
        assert set(statuses) == {"network"}
    else:
        assert statuses[0] == "ok" and "ok" not in statuses[1:]
        assert any(SECRETS["cookie"] in line for line in site.cookies)  # they were in use
    assert found_in(tmp_path, holders) == []
    assert said(done) == []


def test_a_secret_of_the_environment_is_in_use_and_in_no_file(
    laid_out: Any, tmp_path: Path, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even in params.yaml, and so not in the dvc.lock that repeats it."""
    video = make_video(tmp_path / "made" / "v.mp4", frames=25, side=128).read_bytes()
    token = SECRETS["site token"]
    with HostileSite() as site:
        site.answers[f"good-{token}"] = lambda h: h.send(200, video, Content_Type="video/mp4")
        url = f"{site.url}/watch/{{video_id}}-{{env:SITE_TOKEN}}"
        _, params = laid_out(site, url=url, mirror=None, cookies=None, yt_dlp={})
        missing = stage(params, tmp_path)
        monkeypatch.setenv("SITE_TOKEN", token)
        done = stage(params, tmp_path)
    assert missing.returncode == 2 and "export SITE_TOKEN=" in missing.stderr
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "data" / "downloads.parquet").to_pylist()
    assert [row["status"] for row in rows].count("ok") == 1  # the site was asked with it
    assert [line for line in found_in(tmp_path, set()) if "site token" in line] == []
    assert said(done) == []


def test_a_fault_of_ours_tells_no_secret_in_its_traceback(
    laid_out: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, without_beam: Any
) -> None:
    from pipelines import download
    from pipelines.params import load

    with HostileSite() as site:
        holders, params = laid_out(site)

        def fail(video: str, url: str, settings: Any, *rest: Any) -> None:
            address = f"{settings.mirror} via http://me:{SECRETS['proxy password']}@proxy"
            raise RuntimeError(f"cannot reach {address}, {settings.url}")

        monkeypatch.setattr(download.fetch, "fetch", fail)
        with caplog.at_level("DEBUG"):
            summary = engine.run(download.prepare(load(params)))
    assert summary.statuses["internal_error"] == 3
    assert "cannot reach" in caplog.text
    words = caplog.text
    assert [n for n, secret in SECRETS.items() if secret in words] == []
    assert found_in(tmp_path, holders) == []


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """Else it could not fail."""
    import pyarrow as pa

    (tmp_path / "log.txt").write_text(SECRETS["signature"])
    pq.write_table(pa.table({"a": [SECRETS["cookie"]] * 50}), tmp_path / "m.parquet")
    found = found_in(tmp_path, set())
    assert found == ["signature in log.txt", "cookie in m.parquet"]
    assert SECRETS["cookie"].encode() not in zlib.compress(gzip.compress(b"x"))


NAMES = ["sig", "Signature", "X-Amz-Signature", "X-Goog-Credential", "access_token", "token"]
NAMES += ["api_key", "apikey", "AWSAccessKeyId", "Key-Pair-Id", "Policy", "auth", "pwd", "secret"]
NAMES += ["X-Amz-Security-Token", "client_secret", "session", "oauth_token", "se.sig"]


@given(
    st.sampled_from(NAMES),
    st.text("abcXYZ019%+/=-._~", min_size=1, max_size=20),
    st.sampled_from("?&;"),
)
def test_signed_addresses_are_redacted(name: str, value: str, before: str) -> None:
    secret = f"Zq{value}qZ"
    for text in (
        f"https://h/v{before}{name}={secret}&n=1",
        f"GET /v{before}{name}={secret} failed",
    ):
        assert secret not in redact(text)
        assert secret not in clean_detail(text)
        assert name in redact(text)


@pytest.mark.parametrize("text", ["https://h/v?id=5&list=ab&t=3", "http://h/watch?v=-sig-key_abc"])
def test_what_names_a_video_stays(text: str) -> None:
    assert redact(text) == text


def test_error_lines_about_params_repeat_no_value_of_a_secret(tmp_path: Path) -> None:
    """A key mistyped beside a secret names the key alone."""
    path = tmp_path / "params.yaml"
    path.write_text(
        "name: x\ncatalog: {metadata: m, sources: [{name: s, reader: mp4}]}\n"
        f"download: {{proxy_: 'http://me:{SECRETS['proxy password']}@h'}}\n"
        "card: {title: t, licence: mit, description: d}\n"
    )
    done = stage(str(path), tmp_path)
    assert done.returncode == 2 and "download.proxy_: unknown key" in done.stderr
    assert said(done) == []
