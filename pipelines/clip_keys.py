"""A clip's key: its name within its source, in shards and manifests."""

from __future__ import annotations

from pipelines.sources.base import Annotation


def clip_key(person: str, video: str, utterance: str) -> str:
    """The clip's name in shards and manifests."""
    return f"{person}_{video}_{utterance}"


class Keys:
    """The keys of a source, each given to one clip alone, in flat memory.

    `a/b_c/1` and `a_b/c/1` have the same one. That can only be where one person's name begins with
    the other's, and readers yield people in order: held are the clips of the person at hand, and
    of those with whose names that one's begins.
    """

    def __init__(self) -> None:
        self._people: list[tuple[str, dict[str, str]]] = []

    def taken_by(self, clip: Annotation) -> str | None:
        """The clip, as person/video/utterance, that has this one's key; None gives it to this."""
        while self._people and not clip.person.startswith(self._people[-1][0]):
            self._people.pop()
        if not self._people or self._people[-1][0] != clip.person:
            self._people.append((clip.person, {}))
        name = clip.person, clip.video, clip.utterance
        key = clip_key(*name)
        for _, clips in self._people:
            if key in clips:
                return clips[key]
        self._people[-1][1][key] = "/".join(name)
        return None
