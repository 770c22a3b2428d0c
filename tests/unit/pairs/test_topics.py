import pytest

from xl.pairs.topics import topic


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        ("Explain how volcanoes form.", "explain volcano"),
        ("Please explain volcanoes to me.", "explain volcano"),
        ("Could you explain the volcano?", "explain volcano"),
        ("What is photosynthesis?", "what photosynthesis"),
        ("What are the phases of the moon?", "what phase"),
        ("How do I bake bread at home?", "how bake bread"),
        ("How to bake bread", "how bake bread"),
        ("How do bees find nectar?", "how bee"),
        ("How many legs does a spider have?", "how-many leg"),
        ("Is malaria contagious?", "whether malaria"),
        ("Analyse the glass industry.", "analyze industry"),
        ("Tell me about the history of chess.", "tell chess"),
        ("Write a news article about the Berlin Marathon.", "write article"),
        ("In the 19th century, who invented the bicycle?", "who bicycle"),
        ("?!", "other"),
        ("", "other"),
    ],
)
def test_a_topic_is_verb_and_object(instruction, expected):
    assert topic(instruction) == expected
