"""A key is one clip's, whatever the names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipelines.clip_keys import Keys, clip_key
from pipelines.sources.base import Annotation

Names = tuple[str, str, str]
words = st.text(st.sampled_from("-1A_a"), min_size=1, max_size=4)


@given(st.lists(st.tuples(words, words, words)))
def test_every_second_clip_of_a_key_is_told_with_the_first(clips: list[Names]) -> None:
    keys = Keys()
    first: dict[str, str] = {}
    for names in sorted(clips):
        key = clip_key(*names)
        assert keys.taken_by(Annotation(*names)) == first.get(key)
        first.setdefault(key, "/".join(names))


def test_of_many_people_few_are_held() -> None:
    keys = Keys()
    for person in sorted(f"id{n}" for n in range(2000)):
        for utterance in "123":
            assert keys.taken_by(Annotation(person, "a_b", utterance)) is None
        assert len(keys._people) <= 4
