"""The request of a run takes over what its message says when somebody asks for it; nobody can tell."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from aioretryq.context import Request
from aioretryq.message import TaskMessage

MESSAGE = TaskMessage(id="1", task="t", args=[1], stamps={"a": 1}, retries=2, origin="gen1@host")


def test_it_says_what_the_message_says():
    request = Request.of(MESSAGE, hostname="w@h", deliveries=2)
    assert (request.retries, request.origin, request.stamps, request.attempts) == (2, "gen1@host", {"a": 1}, 3)
    assert (request.root_id, request.parent_id, request.hostname, request.deliveries) == ("1", None, "w@h", 2)
    with pytest.raises(AttributeError, match="nope"):
        _ = request.nope


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, dataclasses.replace, lambda request: pickle.loads(pickle.dumps(request))]
)
def test_copies_have_all_of_it_and_not_the_message(copied):
    request = copied(Request.of(MESSAGE))
    assert request == Request.of(MESSAGE)
    assert not hasattr(request, "_message")


def test_as_a_dictionary():
    assert dataclasses.asdict(Request.of(MESSAGE))["origin"] == "gen1@host"
    assert dataclasses.asdict(Request(id="2"))["id"] == "2"
