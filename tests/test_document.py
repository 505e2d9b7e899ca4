"""The metadata document: parsed strictly, and laid flat."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scw_signal import document
from scw_signal.document import MAX_DEPTH, MAX_KEY, MAX_NODES
from scw_signal.errors import NonsenseError

unhurried = settings(deadline=None)  # the machine may have other things to do
SAMPLES = Path(__file__).parent / "samples"
ANY_TEXT = st.text(st.characters())  # lone surrogates as well
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda children: st.lists(children) | st.dictionaries(ANY_TEXT, children),
    max_leaves=8,
)
OBJECTS = st.dictionaries(ANY_TEXT, JSON)


def nested(containers: int, innermost: str = "[]") -> bytes:
    """Return a document of that many containers, each inside the one before."""
    lists = containers - 2
    return f'{{"a":{"[" * lists}{innermost}{"]" * lists}}}'.encode()


# Parsing


def test_a_document_is_one_json_object() -> None:
    assert document.parse(b'{"a": [1, 2.5, true, null, "x"]}') == {
        "a": [1, 2.5, True, None, "x"]
    }


def test_a_byte_order_mark_is_skipped() -> None:
    assert document.parse(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_of_a_key_written_twice_the_last_counts() -> None:
    assert document.parse(b'{"a": 1, "a": 2}') == {"a": 2}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"", "not JSON$", id="empty"),
        pytest.param(b"HOSTNAME=x\n", "not JSON$", id="text form"),
        pytest.param(b" \n<html>503</html>", "not JSON but HTML$", id="HTML"),
        pytest.param(b'{"a": 1', "not JSON", id="cut off"),
        pytest.param(b'{"a": 1} {}', "not JSON", id="two documents"),
        pytest.param(b'{"a": "\n"}', "not JSON", id="raw control character"),
        pytest.param(b'{"a": NaN}', "not JSON", id="NaN"),
        pytest.param(b'{"a": Infinity}', "not JSON", id="Infinity"),
        pytest.param(b'{"a": -Infinity}', "not JSON", id="-Infinity"),
        pytest.param(b'{"a": 1e999}', "not JSON", id="1e999"),
        pytest.param(b'{"a": ' + b"9" * 5000 + b"}", "not JSON", id="5000 digits"),
        pytest.param(b"\xef\xbb\xbf" * 2 + b"{}", "not JSON", id="two BOMs"),
        pytest.param(b'{"a": "\xff"}', "not UTF-8", id="Latin-1"),
        pytest.param(b'{"a": "\xed\xa0\x80"}', "not UTF-8", id="encoded surrogate"),
        pytest.param('{"a": 1}'.encode("utf-16"), "not UTF-8", id="UTF-16"),
        pytest.param(b"[]", "not an object", id="list"),
        pytest.param(b"null", "not an object", id="null"),
        pytest.param(b'"a"', "not an object", id="string"),
        pytest.param(nested(MAX_DEPTH + 1), "nested too deep", id="deep"),
        pytest.param(nested(15_000), "nested too deep", id="very deep"),
        pytest.param(b'{"a":' * 15_000, "nested too deep", id="very deep and cut off"),
    ],
)
def test_anything_else_is_nonsense_and_the_error_says_what_it_is(
    body: bytes, message: str
) -> None:
    with pytest.raises(NonsenseError, match=message):
        document.parse(body)


def test_a_document_may_be_nested_as_deep_as_the_bound() -> None:
    document.parse(nested(MAX_DEPTH))


def test_a_document_may_have_as_many_values_as_the_bound_and_no_more() -> None:
    def with_values(count: int) -> bytes:
        return b'{"a":[' + b",".join([b"0"] * (count - 1)) + b"]}"

    assert len(document.flatten(document.parse(with_values(MAX_NODES)))) == MAX_NODES
    with pytest.raises(NonsenseError, match="more than 20000 values"):
        document.parse(with_values(MAX_NODES + 1))


def test_a_flat_key_may_be_as_long_as_the_bound_and_no_longer() -> None:
    # Otherwise one long name with many children would fill the memory.
    def with_key(length: int) -> bytes:
        return json.dumps({"x" * (length - 5): {"ab": [0]}}).encode()

    (*_, (key, _)) = document.flatten(document.parse(with_key(MAX_KEY)))
    assert len(key) == MAX_KEY
    with pytest.raises(NonsenseError, match=f"keys of more than {MAX_KEY} characters"):
        document.parse(with_key(MAX_KEY + 1))


@pytest.mark.parametrize("body", [nested(MAX_DEPTH + 1), b'[{"a":' * MAX_DEPTH])
def test_a_document_that_is_nested_too_deep_is_not_parsed(
    monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    # The parser's limit of recursion differs between versions of Python.
    monkeypatch.delattr(json, "loads")
    with pytest.raises(NonsenseError, match="nested too deep"):
        document.parse(body)


@pytest.mark.parametrize("text", ["[" * 99, '\\"' + "{" * 99, "]" * 99 + "[" * 99])
def test_brackets_in_text_are_not_nesting(text: str) -> None:
    assert document.parse(json.dumps({"a": text}).encode()) == {"a": text}


@unhurried
@given(JSON)
def test_the_depth_of_a_value_is_known_without_parsing_it(value: Any) -> None:
    def depth(node: Any) -> int:
        children = node.values() if isinstance(node, dict) else node
        return 1 + max(map(depth, children), default=0) if _is_container(node) else 0

    assert document._depth(json.dumps(value).encode()) == depth(value)


def _is_container(node: Any) -> bool:
    return isinstance(node, dict | list)


@unhurried
@given(st.binary() | st.binary().map(b'{"a":'.__add__))
def test_any_bytes_are_a_document_or_nonsense(body: bytes) -> None:
    with contextlib.suppress(NonsenseError):
        assert isinstance(document.parse(body), dict)


@unhurried
@given(JSON)
def test_any_json_is_a_document_or_nonsense(value: Any) -> None:
    body = json.dumps(value)
    with contextlib.suppress(NonsenseError):
        assert document.parse(body.encode()) == json.loads(body)


# Laying flat


def test_containers_come_before_what_is_in_them_and_all_in_order() -> None:
    assert document.flatten(
        {
            "text": "a b",
            "empty": "",
            "null": None,
            "yes": True,
            "no": False,
            "int": -1,
            "float": 2.5,
            "list": ["x", [None]],
            "none": [],
            "dict": {"b": 1, "a": {}},
        }
    ) == [
        ("TEXT", "a b"),
        ("EMPTY", ""),
        ("NULL", None),
        ("YES", "True"),
        ("NO", "False"),
        ("INT", "-1"),
        ("FLOAT", "2.5"),
        ("LIST", "2"),
        ("LIST_0", "x"),
        ("LIST_1", "1"),
        ("LIST_1_0", None),
        ("NONE", "0"),
        ("DICT", "B A"),
        ("DICT_B", "1"),
        ("DICT_A", ""),
    ]


@pytest.mark.parametrize(
    ("tree", "pairs"),
    [
        ({"a_b": 1, "a": {"b": 2}}, [("A_B", "1"), ("A", "B")]),
        ({"a": {"b": 2}, "a_b": 1}, [("A", "B"), ("A_B", "2")]),
        ({"a": 1, "A": 2}, [("A", "1")]),
        ({"a": [1], "a_0": 2}, [("A", "1"), ("A_0", "1")]),
        ({"a.b": 1, "a_b": 2}, [("A_B", "1")]),
    ],
)
def test_of_keys_that_flatten_to_the_same_name_the_first_counts(
    tree: dict[str, Any], pairs: list[tuple[str, str]]
) -> None:
    assert document.flatten(tree) == pairs


@pytest.mark.parametrize(
    ("key", "name"),
    [
        pytest.param("id", "ID", id="lower case"),
        pytest.param("\u0131d", "\u0131D", id="a dotless i is no I"),
        pytest.param("\xdf", "\xdf", id="a sharp s is no SS"),
        pytest.param("a b; $(id)", "A B; $(ID)", id="hostile"),
        pytest.param("a\n=\0", "A\n=\0", id="newline and NUL"),
        pytest.param("\ud800x", "\ufffdX", id="lone surrogate"),
    ],
)
def test_a_name_is_the_key_with_ascii_letters_in_upper_case(
    key: str, name: str
) -> None:
    assert document.flatten({"k": {key: 0}}) == [("K", name), (f"K_{name}", "0")]


def test_an_empty_key_has_a_name_only_inside_another_key() -> None:
    assert document.flatten({"": {"lost": 1}, "path": {"": 1}}) == [
        ("PATH", ""),
        ("PATH_", "1"),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("\ud83d\udc21", "\U0001f421"),  # a surrogate pair
        ("\ud83d", "\ufffd"),
        ("a\udc21b", "a\ufffdb"),
        ("\ud800\ud800\udc00", "\ufffd\U00010000"),
        ("\ufeffa", "\ufeffa"),
    ],
)
def test_lone_surrogates_in_a_value_are_replaced_and_pairs_are_joined(
    value: str, text: str
) -> None:
    assert document.flatten({"a": value}) == [("A", text)]


@pytest.mark.parametrize(
    ("public_ip", "text"),
    [("192.0.2.1", "192.0.2.1"), (None, None), ({"address": "192.0.2.1"}, "ADDRESS")],
)
def test_a_value_may_change_its_shape_over_the_years(
    public_ip: Any, text: str | None
) -> None:
    assert dict(document.flatten({"public_ip": public_ip}))["PUBLIC_IP"] == text


def test_a_walk_finds_containers_by_the_same_names() -> None:
    tree = document.parse((SAMPLES / "conf-routed-ipv4.json").read_bytes())
    found = document.walk(tree)
    assert list(found) == [name for name, _ in document.flatten(tree)]
    assert found["PUBLIC_IP"] is tree["public_ip"]
    assert found["PUBLIC_IPS_0_TAGS"] == []


@unhurried
@given(OBJECTS)
def test_every_name_comes_once_and_all_text_can_be_written_as_utf_8(
    tree: dict[str, Any],
) -> None:
    pairs = document.flatten(tree)
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names)
    for text in (*names, *(text for _, text in pairs if text is not None)):
        text.encode()


@unhurried
@given(st.dictionaries(st.text("ab", min_size=1), JSON))
def test_the_top_of_the_document_is_found_by_its_keys(tree: dict[str, Any]) -> None:
    found = document.walk(tree)
    assert all(found[key.upper()] is value for key, value in tree.items())
