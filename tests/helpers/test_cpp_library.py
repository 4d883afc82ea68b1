"""The compiler of tests that compile C++."""

import pytest
from helpers.cpp_library import compiler


@pytest.mark.parametrize(
    ("variable", "words"),
    [(None, ["g++"]), ("", ["g++"]), ("ccache 'g 12' -m64", ["ccache", "g 12", "-m64"])],
)
def test_the_compiler_may_have_words(variable, words, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    if variable is not None:
        monkeypatch.setenv("CXX", variable)
    assert compiler() == words
