"""Nothing that a signature was given, or gives away, changes it."""

from __future__ import annotations

import json

import pytest
from canvas.both import Ours

from aioretryq import Signature, chord

make = Ours()


@pytest.fixture
def whole():
    return (make.s("a", [1], at={"x": [1]}) | make.s("b")).link(make.s("c").set(headers={"h": [1]}))


def test_what_it_reads_as(whole):
    before = json.dumps(whole.to_dict())
    for given in (whole.to_dict(), whole):
        first = given["kwargs"]["tasks"][0]
        first["args"][0].append(2)
        first["kwargs"]["at"]["x"].append(2)
        first["options"]["queue"] = "another"
        given["options"]["link"][0]["options"]["headers"]["h"].append(2)
        given["options"]["link"][0]["task"] = "another"
    whole.kwargs["tasks"][0]["kwargs"]["z"] = 1
    whole.options["link"][0]["task"] = "another"
    whole.tasks[0].args[0].append(2)
    whole.tasks[0].kwargs["at"]["x"].append(2)
    assert json.dumps(whole.to_dict()) == before


def test_a_header():
    whole = chord([make.s("a")], make.s("b"))
    whole["kwargs"]["header"][0]["options"]["queue"] = "another"
    assert whole.tasks[0].options == {}


def test_what_it_was_given():
    values, headers, stamps = [1], {"h": [1]}, {"who": [1]}
    first = make.s("a", values).set(headers=headers, stamps=stamps)
    again = first.clone((values,), {"k": values}, headers=headers).replace(args=(values,), kwargs={"k": values})
    before = [json.dumps(each.to_dict()) for each in (first, again)]
    for each in (values, headers["h"], stamps["who"]):
        each.append(2)
    headers["more"] = []
    assert [json.dumps(each.to_dict()) for each in (first, again)] == before


def test_a_dictionary_that_it_was_read_from(whole):
    written = whole.to_dict()
    again = Signature.from_dict(written)
    step = written["kwargs"]["tasks"][0]
    step["args"][0].append(2)
    step["kwargs"]["at"]["x"].append(2)
    step["kwargs"]["z"] = 1
    step["options"]["queue"] = "another"
    written["options"]["link"][0]["options"]["headers"]["h"].append(2)
    assert again == whole


def test_what_was_linked():
    callback = make.s("b")
    first = make.s("a").link(callback)
    first.options["link"][0]["options"]["queue"] = "another"
    assert callback.options == {}
    assert first.options["link"][0]["options"] == {}


def test_tuples_and_lists_are_the_same_to_it():
    first = make.s("a", (1, 2), at=(3,)) | make.s("b")
    assert Signature.from_dict(json.loads(json.dumps(first.to_dict()))) == first
    assert first != make.s("a", (1, 2), at=(4,)) | make.s("b")
    generated = make.group(make.s("a") for _ in range(3))
    assert generated == generated.clone()
    assert generated != make.group(make.s("a") for _ in range(3))
