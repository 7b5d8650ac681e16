import pytest
import torch

from snnlearn.lessons.exercise import Exercise

X = torch.linspace(-2, 2, 5)
SQUARE = Exercise(
    "square",
    lambda x, k: k * x**2,
    [(X, 3.0)],
    hints=["Multiply.", "Twice."],
    explain=lambda arguments, got, wanted: "the factor k is missing" if torch.equal(got * 3, wanted) else None,
)


def stub(x, k):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("attempt", "passed", "message"),
    [
        (SQUARE.solution, True, "correct"),
        (lambda x, k: (k * x**2).tolist(), True, "correct"),
        (stub, None, "not attempted yet"),
        (lambda x, k: None, None, "not attempted yet"),
        (lambda x, k: ..., None, "not attempted yet"),
        (lambda x, k: 1.01 * k * x**2, False, "first difference at [0]: got 12.12, wanted 12"),
        (lambda x, k: x**2, False, "the factor k is missing"),
        (lambda x, k: x[:3], False, "its shape is (3,), wanted (5,)"),
        (lambda x, k: x / [], False, "your function raised TypeError"),
        (lambda x, k: "twelve", False, "it returned a str, wanted numbers"),
        (lambda x, k: k * x**2 * float("nan"), False, "got nan"),
        (lambda: 3, False, "your function raised TypeError"),
    ],
)
def test_verdicts(attempt, passed, message, capsys):
    got, said = SQUARE.verify(attempt)
    assert got is passed
    assert message in said
    assert SQUARE(attempt) is None  # prints, and never raises
    assert capsys.readouterr().out[0] == {True: "✔", False: "✘", None: "…"}[passed]


def test_an_attempt_cannot_spoil_the_cases():
    def greedy(x, k):
        x.zero_()
        return x

    assert SQUARE.verify(greedy)[0] is False
    assert SQUARE.verify(SQUARE.solution)[0] is True


def test_hints_and_solution():
    assert "Hint 1 of 2" in SQUARE.hint().data
    assert "Twice." in SQUARE.hint(2).data
    assert "hint(1) to hint(2)" in SQUARE.hint(3).data
    shown = SQUARE.reveal().data
    assert "<details>" in shown
    assert "k * x**2" in shown
