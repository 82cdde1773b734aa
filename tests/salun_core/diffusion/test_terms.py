"""Which words of captions count."""

from salun_core.diffusion import terms


def test_words_lose_case_and_punctuation() -> None:
    assert terms.words("A red, hand-drawn Cat's face!") == (
        "a",
        "red",
        "hand-drawn",
        "cat's",
        "face",
    )


def test_rare_words_and_those_of_nearly_all_texts_do_not_count() -> None:
    texts = [f"picture {'red' if turn % 2 else 'blue'}" for turn in range(40)] + ["picture odd"] * 7
    assert terms.common(texts) == ("blue", "red")


def test_presence_is_by_whole_words() -> None:
    found = terms.present(["a red cat", "reddish cats", "CAT"], ("cat", "red"))
    assert found.tolist() == [[True, True], [False, False], [True, False]]
