from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import errors
from pipelines.doctor import checks
from pipelines.download import DownloadWorker
from pipelines.errors import UserError, clean_detail, conceal, redact
from pipelines.params import Params, environment
from pipelines.params.dataset import Download

PASSWORD = "Zq-password-qZ"


@pytest.fixture(autouse=True)
def nothing_concealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_concealed", set())


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Download:
    """Settings with variables at every depth, all of which are set."""
    monkeypatch.setenv("PROXY_PASSWORD", PASSWORD)
    monkeypatch.setenv("HOST", "127.0.0.1")
    return Download(
        proxy="socks5://me:{env:PROXY_PASSWORD}@{env:HOST}:1080",
        extractor_args={"youtube": {"po_token": ["web+{env:PROXY_PASSWORD}"]}},
        yt_dlp={"password": "{env:PROXY_PASSWORD}", "retries": 3, "list": ["{env:HOST}", 1, None]},
    )


def test_every_depth_is_filled_and_all_else_kept(told: Download) -> None:
    assert environment.names(told) == ["PROXY_PASSWORD", "HOST"]
    filled = environment.filled(told)
    assert filled.proxy == f"socks5://me:{PASSWORD}@127.0.0.1:1080"
    assert filled.extractor_args == {"youtube": {"po_token": [f"web+{PASSWORD}"]}}
    assert filled.yt_dlp == {"password": PASSWORD, "retries": 3, "list": ["127.0.0.1", 1, None]}
    changed = {"proxy", "extractor_args", "yt_dlp"}
    assert filled.model_dump(exclude=changed) == told.model_dump(exclude=changed)
    assert PASSWORD not in told.model_dump_json()


def test_other_placeholders_are_left_alone() -> None:
    plain = Download(mirror="s3://bucket/{video_id}.{ext}")
    assert environment.names(plain) == [] and environment.filled(plain) is plain


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_is_one_line(
    told: Download, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("HOST")
    if value is not None:
        monkeypatch.setenv("HOST", value)
    with pytest.raises(UserError, match=r"\{env:HOST\}.* HOST is not set: export HOST=") as caught:
        environment.filled(told)
    assert "\n" not in str(caught.value) and PASSWORD not in str(caught.value)


@given(st.text(st.characters(codec="utf-8"), min_size=errors.SHORTEST_SECRET), st.text())
def test_what_is_concealed_is_in_no_words(secret: str, around: str) -> None:
    errors._concealed.clear()
    conceal([secret])
    kept = f"{around}{secret}{around}"
    assert secret not in redact(kept).replace("***", "")
    errors._concealed.clear()


def test_short_values_tear_no_holes_into_words() -> None:
    conceal(["80", ""])
    assert clean_detail("HTTP Error 480: x") == "HTTP Error 480: x"


def test_a_worker_elsewhere_needs_no_variables(
    told: Download,
    make_params: Callable[..., Params],
    write_manifest: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pipelines.schemas import CATALOG

    params = make_params(download=told.model_dump())
    write_manifest(params, "catalog", CATALOG, [])
    sent = pickle.dumps(DownloadWorker(params, run="r"))
    monkeypatch.delenv("PROXY_PASSWORD")
    monkeypatch.setattr(errors, "_concealed", set())
    worker: Any = pickle.loads(sent)
    worker.setup()
    assert worker._settings.proxy == f"socks5://me:{PASSWORD}@127.0.0.1:1080"
    assert redact(f"cannot reach {PASSWORD}") == "cannot reach ***"


def test_the_doctor_says_what_is_set(
    told: Download, make_params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    params = make_params(download=told.model_dump())
    proxy = tuple(check for check in checks.CHECKS if check.name == "proxy")
    first, second = checks.run(params, proxy)
    assert first.line().split() == ["ok", "environment", "PROXY_PASSWORD,", "HOST", "set"]
    assert second.level == "fail" and "does not answer" in second.line()
    assert PASSWORD not in second.line()
    monkeypatch.delenv("HOST")
    first, second = checks.run(params, proxy)
    assert first.level == "fail" and "export HOST" in first.line()
