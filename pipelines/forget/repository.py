"""The DVC repository of the project: its cache, its remotes, and the commands that clean them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines import storage
from pipelines.errors import UserError, clean_detail


@dataclass(frozen=True)
class Remote:
    """A DVC remote."""

    name: str
    url: str
    """Absolute for a folder; credentials may be in it: never shown."""

    @property
    def command(self) -> str:
        """Cleans the cache and this remote."""
        return f"dvc gc --workspace --cloud --remote {self.name}"


@dataclass(frozen=True)
class Repository:
    """What of DVC matters here."""

    root: Path
    cache: Path
    remotes: tuple[Remote, ...]
    handle: Any

    def object_of(self, path: Path) -> str | None:
        """The md5 that an object's path spells, below the cache or a remote's folder."""
        name = path.parent.name + path.name
        return name if len(path.parent.name) == 2 and len(name.split(".")[0]) == 32 else None

    def remote_holds(self, remote: Remote, objects: Iterable[str]) -> bool:
        """Whether a remote still has any of the objects; OSError where it does not answer."""
        try:
            store = self.handle.cloud.get_remote_odb(remote.name)
            return any(store.exists(oid) for oid in objects)
        except Exception as error:
            raise OSError(clean_detail(error)) from error


def find(folder: Path) -> Repository | None:
    """The repository of a folder, None outside of one. Raises UserError for a broken one."""
    try:
        from dvc.exceptions import DvcException, NotDvcRepoError
        from dvc.repo import Repo
    except ImportError:
        return None
    try:
        repo = Repo(str(folder))
    except NotDvcRepoError:
        return None
    except DvcException as error:  # a folder of DVC that git does not know, a damaged config
        raise UserError(
            f"DVC cannot open the repository of {folder} ({clean_detail(error)}); its cache may "
            "hold them: mend that first (`git init`, or `dvc init --no-scm -f`)"
        ) from None
    remotes = []
    for name, settings in sorted(repo.config["remote"].items()):
        # DVC keeps a folder's address relative to its config file and resolves it itself.
        remotes.append(Remote(name, str(settings["url"])))
    return Repository(Path(repo.root_dir), Path(repo.cache.local.path), tuple(remotes), repo)


def folder_of(remote: Remote) -> Path | None:
    """A remote that is a folder of this machine."""
    return Path(storage.local_path(remote.url)) if storage.is_local(remote.url) else None


def history(root: Path, names: Iterable[str], besides: Iterable[Path]) -> list[str]:
    """Commits, by short hash, that brought or took any of the names, outside some paths.

    Raises OSError where git cannot be asked.
    """
    if not (root / ".git").exists():
        return []
    if not (pattern := "|".join(sorted(names))):  # all in one pass over the history
        raise OSError("ids so short stand in any text by chance")
    inside = [path for path in besides if path.is_relative_to(root)]
    outside = [f":(exclude){path.relative_to(root)}" for path in inside]
    words = ["git", "log", "--all", "--format=%h", "--pickaxe-regex", f"-S{pattern}", "--", "."]
    done = subprocess.run(
        [*words, *outside], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise OSError(clean_detail(done.stderr or "git log failed"))
    return done.stdout.split()
