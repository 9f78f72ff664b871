"""A recovery key in shares: enough of them are the key, fewer are nothing."""

import itertools
import stat

import pytest

from diffpriv.keys.errors import MisuseError, RecipientError
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.splitting import join, read_share, split


def test_any_two_of_three_shares_join_to_the_key_and_one_does_not(recipient_key, tmp_path):
    shares = split(recipient_key, 2, 3)
    for share in shares:
        share.save(tmp_path / f"share-{share.number}.txt")
    words = [read_share(tmp_path / f"share-{number}.txt") for number in (1, 2, 3)]
    assert all(len(one.split()) == 33 for one in words)
    for pair in itertools.combinations(words, 2):
        assert join(pair, recipient_key.recipient).same_as(recipient_key)
    with pytest.raises(RecipientError, match="don't join"):
        join(words[:1])
    with pytest.raises(RecipientError, match="don't join"):
        join([words[0], words[0]])
    assert stat.S_IMODE((tmp_path / "share-1.txt").stat().st_mode) == 0o600


def test_a_mistyped_word_and_a_foreign_share_are_found(recipient_key):
    one, two, _ = (share.words for share in split(recipient_key, 2, 3))
    mistyped = " ".join(["academic" if place == 20 else word for place, word in enumerate(one.split())])
    with pytest.raises(RecipientError, match="don't join"):
        join([mistyped, two])
    other = split(RecipientKey.generate(), 2, 3)
    with pytest.raises(RecipientError, match="don't join"):
        join([one, other[1].words])
    with pytest.raises(RecipientError, match="shares join to the key of recipient"):
        join([share.words for share in other[:2]], recipient_key.recipient)


def test_words_may_be_typed_in_capitals_and_over_several_lines(recipient_key):
    one, two = (share.words for share in split(recipient_key, 2, 2))
    assert join([one.upper().replace(" ", "\n"), two]).same_as(recipient_key)


@pytest.mark.parametrize(("threshold", "shares"), [(1, 3), (4, 3), (2, 17), (0, 0)])
def test_numbers_that_protect_nothing_are_refused(recipient_key, threshold, shares):
    with pytest.raises(MisuseError, match="2 <= threshold <= shares <= 16"):
        split(recipient_key, threshold, shares)


def test_a_share_that_was_mailed_with_other_line_ends_is_read(recipient_key, tmp_path):
    share = split(recipient_key, 2, 2)[0]
    share.save(tmp_path / "share")
    words = read_share(tmp_path / "share")
    (tmp_path / "share").write_bytes((tmp_path / "share").read_bytes().replace(b"\n", b"\r\n"))
    assert read_share(tmp_path / "share") == words


def test_a_share_is_not_printed_and_a_foreign_file_is_not_taken_for_one(recipient_key, tmp_path):
    share = split(recipient_key, 2, 2)[0]
    assert share.words not in repr(share)
    (tmp_path / "x.txt").touch(0o600)
    (tmp_path / "x.txt").write_text("shopping list\n\nmilk")
    with pytest.raises(RecipientError, match="not a share"):
        read_share(tmp_path / "x.txt")
    with pytest.raises(RecipientError, match="can't be read"):
        read_share(tmp_path / "missing.txt")
