"""Texts inside FHIR resources: which attachment is read, and how."""

import base64
import html
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einthoven.config import Source
from einthoven.sources.fhir_elements import ResourceError
from einthoven.sources.fhir_notes import kind_of, text_of_document, text_of_html, text_of_report


def attachment(data: bytes | None, kind: str | None = "text/plain", **more: Any) -> dict[str, Any]:
    found = {"contentType": kind, **more}
    return found if data is None else found | {"data": base64.b64encode(data).decode()}


def document(*attachments: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "DocumentReference", "content": [{"attachment": one} for one in attachments]}


@pytest.mark.parametrize(
    ("attachments", "text"),
    [
        ([attachment(b" Sinus\r\nrhythm\n")], "Sinus\nrhythm"),
        ([attachment(b"\xef\xbb\xbfeins")], "eins"),
        ([attachment("größer".encode("latin-1"), 'text/plain; charset="ISO-8859-1"')], "größer"),
        ([attachment("größer".encode(), "Text/Plain;charset=UTF-8")], "größer"),
        ([attachment(b"<p>a</p>", "text/html"), attachment(b"plain")], "plain"),
        (
            [attachment(b"%PDF", "application/pdf"), attachment(b"<p>a<br/>b &amp; c", "application/xhtml+xml")],
            "a\nb & c",
        ),
        ([attachment(None, url="http://x"), attachment(b"here")], "here"),
    ],
)
def test_attachments(attachments: list[dict[str, Any]], text: str) -> None:
    assert text_of_document(document(*attachments)) == text


@pytest.mark.parametrize(
    ("attachments", "reason"),
    [
        ([], "no-text"),
        ([attachment(b"  \n")], "no-text"),
        ([attachment(b"<style>p {}</style>", "text/html")], "no-text"),
        ([attachment(None, url="http://secret")], "external-attachment"),
        ([attachment(b"%PDF", "application/pdf")], "unsupported-attachment"),
        ([attachment(b"x", None)], "unsupported-attachment"),
        ([attachment(b"x", "text/plain; charset=utf-16")], "unsupported-attachment"),
        ([attachment(b"\xff\xfe")], "bad-resource"),
        ([{"contentType": "text/plain", "data": "a secret"}], "bad-resource"),
        ([{"contentType": "text/plain", "data": "QQ=Q"}], "bad-resource"),
        ([{"contentType": "text/plain", "data": "QUFB" * (6 << 20)}], "too-large"),
        ([attachment(b"x" * ((16 << 20) + 1))], "too-large"),
    ],
)
def test_attachments_that_cannot_be_read(attachments: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(ResourceError) as error:
        text_of_document(document(*attachments))
    assert error.value.reason == reason and "secret" not in error.value.detail


def test_reports() -> None:
    report = {"resourceType": "DiagnosticReport", "conclusion": " spoken "}
    assert text_of_report(report) == "spoken"
    assert text_of_report(report | {"presentedForm": [attachment(b"written")]}) == "written"
    for elsewhere in (attachment(None, url="x"), attachment(b"%PDF", "application/pdf")):
        assert text_of_report(report | {"presentedForm": [elsewhere]}) == "spoken"
        with pytest.raises(ResourceError):
            text_of_report({"resourceType": "DiagnosticReport", "presentedForm": [elsewhere]})
    assert text_of_report({"resourceType": "DiagnosticReport", "presentedForm": [], "conclusion": " "}) is None


def test_kinds() -> None:
    def of(code: str, system: str = "http://loinc.org", **config: Any) -> str:
        concept = {"coding": [{"system": system, "code": code, "display": "A name"}]}
        kinds = {kind_of({"resourceType": "DocumentReference", "type": concept}, Source(**config))}
        kinds.add(kind_of({"resourceType": "DiagnosticReport", "code": concept}, Source(**config)))
        kinds.add(kind_of({"resourceType": "DiagnosticReport", "category": [concept]}, Source(**config)))
        (kind,) = kinds
        return kind

    v2 = "http://terminology.hl7.org/CodeSystem/v2-0074"
    loinc = ["11524-6", "34552-0", "18748-4", "LP29684-5", "18725-2", "11504-8", "34133-9"]
    assert [of(code) for code in loinc] == [
        "ecg", "echo", "radiology", "radiology", "microbiology", "surgical", "clinical",
    ]  # fmt: skip
    assert [of(code, v2) for code in ("EC", "CUS", "RAD", "MB", "LAB")] == [
        "ecg", "echo", "radiology", "microbiology", "clinical",
    ]  # fmt: skip
    assert of("11524-6", "http://other.example") == "clinical" and of("x", note_kind="echo") == "echo"
    assert of("11524-6", note_kinds={"11524-6": "surgical"}) == "surgical"
    assert of("11524-6", note_kinds={"A name": "echo"}) == "echo"


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("", ""),
        ("plain", "plain"),
        ("<div>a<p>b</p>c</div>", "a\nb\nc"),
        ("<b>bo</b>ld <i\n>x</i>", "bold x"),
        ("<table><tr><td>K</td><td>4.1</td></tr><tr><td>Na", "K 4.1\nNa"),
        ("<html><head><title>T</title><style>p{}</style></head><script>if (a<b) x()</script>end", "end"),
        ("<SCRIPT>x</Script >end", "end"),
        ("K < 5 and > 3 &lt;b&gt; &#228;&nbsp;x", "K < 5 and > 3 <b> ä x"),
        ("a<!-- <p> > -->b<!DOCTYPE x>c<?php ?>d", "abcd"),
        ("<!-->a", "a"),
        ("a<p b", "a"),
        ("a<!-- b", "a"),
        ("a<script>b", "a"),
        ("<", "<"),
        ("&#" + "9" * 5000 + ";x", "\ufffdx"),
    ],
)
def test_html(page: str, text: str) -> None:
    assert text_of_html(page) == text


PIECES = st.sampled_from(
    ["<", ">", "<p>", "</", "<!--", "-->", "<script>", "</script>", "&", "&#", "x", "İ", "\n", "9" * 9]
)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_html_of_any_form(page: str) -> None:
    text = text_of_html(page)
    assert text.encode() is not None and text == "\n".join(" ".join(line.split()) for line in text.split("\n"))


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1))
def test_escaped_text_comes_back(text: str) -> None:
    assert text_of_html(f"<p>{html.escape(text)}</p>") == text


@pytest.mark.parametrize("piece", ["<", "<a ", "</", "<!", "<!--", "<script>", "</script", "<a b='", "&#", "&", "<p>"])
def test_html_takes_time_linear_in_its_length(piece: str) -> None:
    began = time.process_time()
    text_of_html(piece * 200_000)
    assert time.process_time() - began < 5  # quadratic: hours
