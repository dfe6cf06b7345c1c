import pytest

from textlift.data.languages import language_of, script_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("I do not know what to do with this, and neither do you.", "English"),
        ("Das ist nicht der Weg, und ich bin auch noch nicht da.", "German"),
        ("Je ne suis pas dans la maison avec vous, mais c'est pour elle.", "French"),
        ("El perro y los gatos son muy lindos, pero no para el todo.", "Spanish"),
        ("Ik weet het niet, maar dat is van een van de kinderen.", "Dutch"),
        ("Nie wiem, czy to jest tak, jak się mówi, ale może tylko dla nich.", "Polish"),
        ("i m feeling so so sad to do it", "English"),
        ("AAPL MSFT TSLA 12 34", ""),
        ("i to do i to do", "English"),
        ("", ""),
    ],
)
def test_a_language_is_told_by_its_function_words_or_not_at_all(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("hello", "Latin"),
        ("\u00fcber \u0142\u00f3d\u017a", "Latin"),
        ("привет", "Cyrillic"),
        ("今日は疲れた", "Japanese"),
        ("今天很累", "Han"),
        ("שלום", "Hebrew"),
        ("مرحبا hi بكم", "Arabic"),
        ("123 :) 😀", ""),
    ],
)
def test_a_script_is_that_of_most_letters(text: str, script: str) -> None:
    assert script_of(text) == script
