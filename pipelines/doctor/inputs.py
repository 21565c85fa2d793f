"""Checks of what a rebuild starts from: annotations, takedowns, cookies, proxy, mirror, DVC."""

from __future__ import annotations

import datetime
import email.utils
import re
import time
import warnings
from collections.abc import Iterator
from http.cookiejar import Cookie, LoadError, MozillaCookieJar
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pyarrow.compute as pc

from pipelines import storage
from pipelines.doctor.software import is_youtube
from pipelines.doctor.verdict import Verdict, Verdicts, address, fail, knock, ok, warn
from pipelines.errors import StopStage, UserError, clean_detail, redact
from pipelines.manifest import ManifestReader
from pipelines.params import Params, environment
from pipelines.site.fetch import NOT_HERE, REFUSED, ask, check_mirror, mirror_urls
from pipelines.sources import READERS, metadata_folder
from pipelines.sources.base import BadRow, SourceError
from pipelines.sources.people import read_people
from pipelines.splits import REMEDY, misfit
from pipelines.statuses import Status
from pipelines.takedowns import read_takedowns

SIGNED_IN = {"SID", "SAPISID", "LOGIN_INFO", "__Secure-1PSID", "__Secure-3PSID"}
"""Google's cookies of an account; without one of them YouTube sees a visitor."""
SOON = 2 * 86400
SAMPLES = 3
CLIPS = 1000
"""Of a source, whose people are looked up in its table."""
NO_HEAD, BUSY = (405, 501), (429, 503)
CHECK_IT = "check the address, the network and your credentials"
PROXIES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


def variables(params: Params) -> Verdicts:
    """What params name of the environment is set. No value is shown."""
    if not (named := environment.names(params.download)):
        return
    try:
        environment.values(params.download)
    except UserError as error:
        yield fail("environment", str(error), "keep it where your other secrets are")
    else:
        yield ok("environment", f"{', '.join(named)} set")


def lists(params: Params) -> Verdicts:
    """Every source gives a first clip, and its list of people is of these people."""
    root = metadata_folder(params.catalog.metadata)
    for source in params.catalog.sources:
        name = f"list {source.name}"
        remedy = f"see catalog.sources.{source.name} in params.yaml"
        try:
            table = read_people(root / source.people)[0] if source.people else {}
            rows = list(islice(READERS[source.reader](root / source.path), CLIPS))
        except (SourceError, OSError) as error:
            yield fail(name, str(error), remedy)
            continue
        if not rows:
            yield fail(name, f"{root / source.path} holds no annotation", remedy)
        elif isinstance(rows[0], BadRow):
            yield warn(name, f"its first line cannot be read: {rows[0].reason}", remedy)
        else:
            yield ok(name, f"{root / source.path} opens")
        if source.people and params.catalog.split.use_published:
            met = {row.person for row in rows if not isinstance(row, BadRow)}
            if why := misfit(table, met):
                # Those met first need not be like all the others.
                say = warn if len(rows) == CLIPS and not misfit(table) else fail
                yield say(f"people {source.name}", f"{root / source.people}: {why}", REMEDY)


def takedowns(params: Params) -> Verdicts:
    """takedowns.csv says what it means."""
    try:
        found = read_takedowns(params.catalog.takedowns)
    except UserError as error:
        yield fail("takedowns", str(error), "mend that line: a rebuild stops on it")
        return
    count = len(found.lines)
    yield ok("takedowns", f"{params.catalog.takedowns}: {count} in force")


def cookies(params: Params) -> Verdicts:
    """The file opens, and its sign-in has not run out. No value of it is shown."""
    where = params.download.cookies
    if where is None:
        if is_youtube(params) and params.download.mirror is None:
            yield warn(
                "cookies",
                "none: YouTube asks for proof of not being a bot sooner",
                "export them from a browser, set download.cookies",
            )
        else:
            yield ok("cookies", "none asked for")
        return
    export = "export it anew from the browser, in Netscape's format"
    jar = MozillaCookieJar(where)
    try:
        with warnings.catch_warnings(action="ignore"):  # a traceback for every damaged line
            jar.load(ignore_discard=True, ignore_expires=True)
    except LoadError:  # its words quote the line, which is a secret
        yield fail("cookies", f"{where} is not in Netscape's format", export)
        return
    except (OSError, UnicodeDecodeError) as error:
        words = getattr(error, "strerror", None) or "not text"
        yield fail("cookies", f"{where}: {words}", export)
        return
    if is_youtube(params):
        signed = [
            c
            for c in jar
            if c.name in SIGNED_IN and c.domain.endswith((".youtube.com", ".google.com"))
        ]
        if not signed:
            words = f"{where}: {len(jar)} cookies, none of a signed-in account"
            yield warn("cookies", words, "sign in to YouTube and export them again")
            return
    else:
        signed = list(jar)
    yield _age(where, signed, export)
    mode = Path(where).stat().st_mode & 0o077
    if mode:
        yield warn("cookies", f"{where} can be read by others", f"chmod 600 {where}")


def _age(where: str, jar: list[Cookie], export: str) -> Any:
    now = time.time()
    ends = [cookie.expires for cookie in jar if cookie.expires]
    gone = [end for end in ends if end <= now]
    if not jar:
        return fail("cookies", f"{where} holds no cookie", export)
    if gone and (len(gone) == len(ends) or len(gone) > len(jar) // 2):
        when = datetime.datetime.fromtimestamp(max(gone)).date()
        return fail("cookies", f"{where} ran out on {when}", export)
    soonest = min((end for end in ends if end > now), default=None)
    if soonest is None:
        return ok("cookies", f"{where}: {len(jar)} cookies without an end")
    words = f"{where}: good until {datetime.datetime.fromtimestamp(soonest).date()}"
    return warn("cookies", words, export) if soonest - now < SOON else ok("cookies", words)


def proxy(params: Params) -> Verdicts:
    """It is written as yt-dlp wants it, and something listens there."""
    where = params.download.proxy
    if where is None:
        yield ok("proxy", "none")
        return
    scheme, found = where.partition("://")[0], address(where)
    if scheme not in PROXIES or "://" not in where or found is None:
        words = "download.proxy is no address such as socks5://user:password@host:1080"
        yield fail("proxy", words, f"use one of {', '.join(PROXIES)} with host and port")
    elif why := knock(*found):
        yield fail("proxy", f"{redact(where)} does not answer: {why}", "start it, or mend the port")
    else:
        yield ok("proxy", f"{redact(where)} takes connections")


def mirror(params: Params) -> Verdicts:
    """It answers, and holds a video or two of this very catalog."""
    own = params.download
    if own.mirror is None:
        yield ok("mirror", "none: every video is asked for at the site")
        return
    shown = redact(own.mirror)
    if "{env:" not in own.mirror:  # what is not set is told by its own check
        try:
            check_mirror(own.mirror)
        except StopStage as error:
            yield fail("mirror", str(error), "the stage stops there")
            return
    answers, date = [], None
    for video in _videos(params):
        status = 404
        for url in mirror_urls(own.mirror, video, own.extensions):
            try:
                status, date = _asked(url, own.timeout)
            except OSError as error:
                words = f"{shown} does not answer: {clean_detail(error)}"
                yield fail("mirror", words, CHECK_IT)
                return
            if status not in NOT_HERE:
                break
        answers.append(status)
    if date is not None and abs(skew := time.time() - date) > 60:
        yield fail("clock", f"{skew:+.0f} s off the mirror's", "set the clock (chronyd, ntpd)")
    yield _judged(shown, answers)


def _judged(shown: str, answers: list[int]) -> Verdict:
    """What the HTTP statuses, one for each video asked for, say of a mirror."""
    held, count = answers.count(200), len(answers)
    deaf = [status for status in answers if status in NO_HEAD]
    ill = [status for status in answers if status not in (200, REFUSED, *NOT_HERE, *NO_HEAD)]
    if not answers:
        return warn("mirror", f"{shown} answers; no video to ask for", "build the catalog first")
    if ill:
        say = warn if set(ill) <= set(BUSY) else fail
        return say("mirror", f"{shown} answers HTTP {ill[0]}", CHECK_IT)
    if deaf:
        words = f"{shown} answers, but not to HEAD (HTTP {deaf[0]}): every video is asked in full"
        return ok("mirror", words)
    if held:
        return ok("mirror", f"{shown} has {held} of {count} videos asked for")
    if set(answers) == {REFUSED}:
        return warn(
            "mirror",
            f"{shown} answers HTTP {REFUSED} for all of {count} videos asked for",
            "are its credentials right, has its signature expired? else the site is asked for "
            "every one",
        )
    return warn(
        "mirror",
        f"{shown} has none of {count} videos asked for",
        "is {video_id}.{ext} how it names them? else the site is asked for every one",
    )


def _videos(params: Params) -> list[str]:
    """A few ids from the whole catalog, or of the annotations' beginning where it is not built."""
    if not storage.exists(url := params.paths.manifest("catalog")):
        return list(islice(_annotated(params), SAMPLES))
    ids: dict[str, None] = {}
    for batch in ManifestReader(url, ["video", "media", "status"]).batches():
        wanted = pc.and_(pc.equal(batch["status"], Status.OK), pc.is_null(batch["media"]))
        ids |= dict.fromkeys(batch["video"].filter(wanted).to_pylist())
    every = list(ids)
    # From end to end: its head may be the part that was fetched first.
    chosen = (every[n * (len(every) - 1) // (SAMPLES - 1)] for n in range(SAMPLES) if every)
    return list(dict.fromkeys(chosen))


def _annotated(params: Params) -> Iterator[str]:
    root = metadata_folder(params.catalog.metadata)
    for source in params.catalog.sources:
        seen = set()
        for item in READERS[source.reader](root / source.path):
            if not isinstance(item, BadRow) and not item.media and item.video not in seen:
                seen.add(item.video)
                yield item.video


def _asked(url: str, timeout: float) -> tuple[int, float | None]:
    """The HTTP status of a mirror's file, or one that means the same, and the mirror's clock."""
    if not url.startswith(("http://", "https://")):
        return 200 if storage.exists(url) else 404, None
    status, headers = ask(url, min(timeout, 10))
    return status, _date(headers.get("Date"))


def _date(text: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() if text else None
    except ValueError:
        return None


def dvc(params: Params) -> Verdicts:
    """The repository, that its dvc.yaml finds what it names in params.yaml, how its cache links
    files, and that nothing else is at work in it."""
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo

    try:
        repo = Repo(str(Path.cwd()))
    except NotDvcRepoError:
        yield warn("dvc", "no DVC repository here", "run from its root, or `dvc init`")
        return
    except DvcException as error:
        yield fail("dvc", clean_detail(error), "`git init` here, or `dvc init --no-scm -f`")
        return
    try:
        _ = repo.index.stages
    except DvcException as error:
        remedy = "no `dvc` command runs; params/ shows what params.yaml lacks"
        yield fail("dvc", clean_detail(error), remedy)
        return
    kinds = repo.config["cache"].get("type") or ["reflink", "copy"]
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    words = f"cache type {','.join(kinds)} in {repo.cache.local.path}"
    if repo.config["core"].get("autostage"):
        yield warn("dvc", f"{words}; autostage is on", "dvc config core.autostage false")
    elif _at_work(Path(repo.tmp_dir) / "rwlock"):
        yield warn("dvc", f"{words}; a `dvc` command holds its lock", "let it end first")
    else:
        yield ok("dvc", words)


def _at_work(lock: Path) -> bool:
    """Whether a process that DVC's lock file names is alive: killed ones leave their lines."""
    try:
        pids = re.findall(r'"pid": *(\d+)', lock.read_text())
    except OSError:
        return False
    return any(psutil.pid_exists(int(pid)) for pid in pids)
