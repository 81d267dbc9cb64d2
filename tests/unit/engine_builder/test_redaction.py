"""What may be secret in an address never stands in a message, wherever in a sentence the address is."""

from __future__ import annotations

import pytest

from engine_builder.fetch.http import redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:hunter2@host/x", "https://…@host/x"),
        ("https://user:hun@ter2@host/x", "https://…@host/x"),
        ("https://user:hun@ter@2@host:8443", "https://…@host:8443"),
        ("https://hunter2@host/a@b", "https://…@host/a@b"),
        ("https://host/x?sig=hunter2", "https://host/x?…"),
        ("https://host/x?sig=hun'ter2&k=1", "https://host/x?…"),
        ('https://host/x?sig=hun"ter2)&k=>1', "https://host/x?…"),
        ("https://host/x?a=1?sig=hunter2", "https://host/x?…"),
        ("https://host/x?to=me@hunter2", "https://host/x?…"),
        ("https://user:p@ss@host/x?k=hunter2 and https://two@host/y", "https://…@host/x?… and https://…@host/y"),
        ("Max retries exceeded with url: /x?sig=hun'ter2 (Caused by it)", "Max retries exceeded with url: /x?… (Caused by it)"),
    ],
)
def test_neither_a_password_nor_a_query_is_shown_in_whole_or_in_part(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text", ["https://host/a@b/c", "is it there? ask owner@host", "hf://owner/name@main", "(really?)", "https://host/x?"]
)
def test_what_holds_no_secret_stays(text: str) -> None:
    assert redacted(text) == text
