"""Hostile and slow mirrors: they are bound as the site is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hostile_site import MB, Handler, HostileSite, drip_body, endless, left


def test_a_copy_in_a_mirror_folder_is_bound_by_max_bytes(
    fetch_all: Any, video: bytes, tmp_path: Path
) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "v.mp4").write_bytes(video)
    with HostileSite() as site:
        mirror = {"mirror": str(tmp_path / "mirror"), "url": site.template}
        row = fetch_all(["v"], max_bytes=len(video) - 1, **mirror)["v"]
        assert row["status"] == "removed"
        assert "mirror: no_format: larger than download.max_bytes" in row["detail"]
        shutil.rmtree(tmp_path / "work")
        assert fetch_all(["v"], max_bytes=len(video), **mirror)["v"]["status"] == "ok"


@pytest.mark.parametrize("lies", [False, True])
def test_a_copy_in_an_object_store_is_bound_by_max_bytes_whatever_it_says(
    fetch_all: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lies: bool
) -> None:
    store = fsspec.filesystem("memory")
    store.pipe(f"/{tmp_path.name}/v.mp4", bytes(5 * MB))
    if lies:
        monkeypatch.setattr(type(store), "size", lambda self, path: 10)
    with HostileSite() as site:
        mirror = f"memory://{tmp_path.name}"
        row = fetch_all(["v"], mirror=mirror, url=site.template, max_bytes=MB)["v"]
    assert "larger than download.max_bytes" in row["detail"]
    assert left(tmp_path) < MB


def test_a_slow_object_store_ends_at_max_seconds(
    fetch_all: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import time

    from pipelines import storage

    fsspec.filesystem("memory").pipe(f"/{tmp_path.name}/v.mp4", bytes(5 * MB))

    class Slow:
        def __init__(self, file: Any) -> None:
            self.file = file

        def read(self, size: int) -> bytes:
            time.sleep(0.6)
            return bytes(self.file.read(size // 4))

        def __enter__(self) -> Slow:
            return self

        def __exit__(self, *error: object) -> None:
            self.file.close()

    real = storage.open_read
    monkeypatch.setattr(
        storage, "open_read", lambda u: Slow(real(u)) if u.startswith("memory:") else real(u)
    )
    with HostileSite() as site:
        mirror = f"memory://{tmp_path.name}"
        row = fetch_all(["v"], mirror=mirror, url=site.template, max_seconds=1)["v"]
    assert "mirror: network: took longer than download.max_seconds" in row["detail"]


@pytest.mark.parametrize("attack", [endless, drip_body])
def test_an_http_mirror_is_bound_as_the_site_is(
    fetch_all: Any, attack: Callable[[Handler], None]
) -> None:
    with HostileSite(v=attack) as mirror, HostileSite() as site:
        limits = {"max_bytes": MB, "max_seconds": 3}
        urls = {"mirror": f"{mirror.url}/{{video_id}}", "url": site.template}
        row = fetch_all(["v"], **urls, **limits)["v"]
    too_large = row["status"] == "removed" and "mirror: no_format: larger" in row["detail"]
    assert too_large or (row["status"] == "network" and "mirror: network" in row["detail"])


def test_a_mirror_that_speaks_no_http_is_a_failed_mirror(fetch_all: Any, video: bytes) -> None:
    def babble(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/9.9 \x00\xff garbage\r\n\r\n")

    with (
        HostileSite(v=babble) as mirror,
        HostileSite(v=lambda h: h.send(200, video, Content_Type="video/mp4")) as site,
    ):
        urls = {"mirror": f"{mirror.url}/{{video_id}}", "url": site.template}
        assert fetch_all(["v"], **urls)["v"]["status"] == "ok"
