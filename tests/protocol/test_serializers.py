"""Serializers: as kombu writes and reads them, and never more than data where data was asked for."""

import datetime
import os
import pickle
from contextlib import suppress
from decimal import Decimal

import kombu.serialization
import msgpack
import pytest
import yaml
from forms import PLAIN, without_package
from hypothesis import given
from hypothesis import strategies as st

from aioretryq import TaskQueue
from aioretryq.config import Settings
from aioretryq.errors import ConfigError, ContentDisallowed, EncodeError, ProtocolError
from aioretryq.protocol import serializers
from aioretryq.protocol.content import CONTENT_TYPES, content_type_of, decode_content, encode_content
from aioretryq.protocol.formats import check_message_formats

NAMES = ("json", "msgpack", "pickle", "yaml")
SAFE = ("json", "msgpack", "yaml")
BODY = [
    ["text", "é\u2028", 1, -1, 1.5, True, None, [], {"k": [1]}],
    {"x": "2030-01-01", "yes": "no", "n": "12"},
    {"callbacks": None, "errbacks": [{"task": "t", "args": [], "options": {}}], "chain": [], "chord": None},
]
kombu.serialization.enable_insecure_serializers()


def here(value, name):
    data, encoding = encode_content(value, CONTENT_TYPES[name])
    return decode_content(data, CONTENT_TYPES[name], encoding, [name])


@pytest.mark.parametrize("name", NAMES)
def test_kombu_reads_what_is_written(name):
    data, encoding = encode_content(BODY, CONTENT_TYPES[name])
    assert kombu.serialization.loads(data, CONTENT_TYPES[name], encoding, accept=[CONTENT_TYPES[name]]) == BODY


@pytest.mark.parametrize("name", NAMES)
def test_what_kombu_writes_is_read(name):
    mime, encoding, data = kombu.serialization.dumps(BODY, serializer=name)
    assert mime == CONTENT_TYPES[name]
    assert encode_content(BODY, mime)[1] == encoding
    raw = data.encode() if isinstance(data, str) else data
    for accepted in (name, mime):
        assert decode_content(raw, mime, encoding, [accepted]) == BODY


@pytest.mark.parametrize("name", ["yaml", "msgpack"])
@given(value=PLAIN)
def test_plain_values_survive(name, value):
    try:
        found = here(value, name)
    except EncodeError:
        assert max(repr(value)) >= "\ud800"  # surrogates, which repr shows escaped or not at all
    else:
        assert found == value


@pytest.mark.parametrize("name", SAFE)
@given(
    data=st.binary()
    | PLAIN.map(repr).map(str.encode)
    | st.text("[]{}&*a:-!<|>\n '\"?,%#0", max_size=30).map(str.encode)
)
def test_any_bytes_are_a_value_or_a_protocol_error(name, data):
    with suppress(ProtocolError):
        decode_content(data, CONTENT_TYPES[name], "utf-8", [name])


def test_what_only_some_serializers_can_hold():
    when = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert here([when.date(), b"\xff", {1: 2}], "yaml") == [when.date(), b"\xff", {1: 2}]
    assert here([b"\xff", {1: 2}], "msgpack") == [b"\xff", {1: 2}]
    assert here([when, {1, 2}, (3,), Decimal("1.5")], "pickle") == [when, {1, 2}, (3,), Decimal("1.5")]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("yaml", Decimal(1), "YAML.*plain data"),
        ("yaml", object(), "YAML.*plain data"),
        ("msgpack", Decimal(1), "msgpack.*plain data"),
        ("msgpack", 2**70, "msgpack"),
        ("msgpack", "\ud800", "msgpack"),
        ("pickle", lambda: 1, "pickled"),
        ("json", {1, 2}, "set"),
    ],
)
def test_what_cannot_be_written_says_so(name, value, says):
    with pytest.raises(EncodeError, match=f"(?s){says}"):
        encode_content([value], CONTENT_TYPES[name])


class TestHostile:
    @pytest.mark.parametrize(
        "text",
        [
            "!!python/object/apply:os.system ['touch /tmp/never']",
            "!!python/name:os.system",
            "!!python/module:antigravity",
            "!!python/object:aioretryq.config.Settings {}",
        ],
    )
    def test_yaml_makes_no_objects(self, text):
        with pytest.raises(ProtocolError, match="ConstructorError"):
            decode_content(text.encode(), CONTENT_TYPES["yaml"], "utf-8", ["yaml"])

    def test_a_few_lines_of_yaml_do_not_become_billions_of_values(self):
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
        with pytest.raises(ProtocolError, match="aliases"):
            decode_content("\n".join(lines).encode(), CONTENT_TYPES["yaml"], "utf-8", ["yaml"])

    def test_yaml_that_contains_itself(self):
        for text in ("&a [*a]", "&a {x: {y: *a}}", "[&a [1, [*a]], *a]"):
            with pytest.raises(ProtocolError, match="contains itself"):
                decode_content(text.encode(), CONTENT_TYPES["yaml"], "utf-8", ["yaml"])

    def test_shared_values_of_yaml_are_fine(self):
        shared = [1, 2]
        assert yaml.safe_dump([shared, shared]).count("*id001") == 1
        assert here([shared, shared], "yaml") == [shared, shared]

    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("json", b"[" * 100_000),
            ("yaml", b"[" * 5_000),
            ("yaml", b"- " * 5_000),
            ("msgpack", b"\x91" * 100_000),
        ],
    )
    def test_depth(self, name, data):
        with pytest.raises(ProtocolError):
            decode_content(data, CONTENT_TYPES[name], "utf-8", [name])

    def test_msgpack_sizes_that_are_not_there(self):
        for data in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x81\x91\x01\x02"):
            with pytest.raises(ProtocolError, match="msgpack"):
                decode_content(data, CONTENT_TYPES["msgpack"], "binary", ["msgpack"])


class TestAcceptance:
    @pytest.mark.parametrize("name", sorted(CONTENT_TYPES))
    def test_only_what_is_accepted_is_touched(self, name, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "made"),)

        others = [other for other in CONTENT_TYPES if other != name]
        with pytest.raises(ContentDisallowed, match=f"serialised with {name}.*accept_content"):
            decode_content(pickle.dumps(Evil()), CONTENT_TYPES[name], "utf-8", others)
        assert not (tmp_path / "made").exists()

    def test_an_unknown_type(self):
        with pytest.raises(ProtocolError, match=r"application/xml.*cannot be read"):
            decode_content(b"<a/>", "application/xml", "utf-8", ["application/xml"])


class TestPackages:
    def test_an_unknown_serializer_is_told_what_is_installed(self, monkeypatch):
        with pytest.raises(ConfigError, match=r"'msgpck'.*mean 'msgpack'.*auth, json, msgpack, pickle, yaml"):
            content_type_of("msgpck")
        without_package(monkeypatch, "yaml", "msgpack")
        with pytest.raises(ConfigError, match=r"'xml'.*Installed are: auth, json, pickle\."):
            content_type_of("xml")

    @pytest.mark.parametrize(
        ("name", "module", "package"),
        [
            ("yaml", "yaml", "PyYAML"),
            ("msgpack", "msgpack", "msgpack"),
            ("auth", "cryptography.x509", "cryptography"),
        ],
    )
    def test_a_missing_package_names_the_extra(self, monkeypatch, name, module, package):
        without_package(monkeypatch, module)
        with pytest.raises(ConfigError, match=rf"{package}.*aioretryq\[{name}\]"):
            content_type_of(name)
        if name != "auth":
            with pytest.raises(EncodeError, match=rf"aioretryq\[{name}\]"):
                encode_content([], CONTENT_TYPES[name])
            with pytest.raises(ProtocolError, match=rf"aioretryq\[{name}\]"):
                decode_content(b"[]", CONTENT_TYPES[name], "utf-8", [name])

    @pytest.mark.parametrize(
        ("settings", "says"),
        [
            ({"task_serializer": "xml"}, "no serializer 'xml'"),
            ({"accept_content": ("json", "yml")}, "no serializer 'yml'.*mean 'yaml'"),
            ({"task_compression": "rar"}, "no compression 'rar'"),
            ({"task_serializer": "auth"}, "set security_key"),
            ({"accept_content": ["application/data"]}, "set security_key"),
            ({"result_serializer": "pickle"}, "result_accept_content"),
            ({"result_serializer": "auth"}, "set security_key"),
            ({"result_accept_content": ["nothing"]}, "no serializer"),
            ({"result_compression": "rar"}, "no compression"),
        ],
    )
    async def test_what_is_set_is_checked_when_a_queue_opens(self, settings, says):
        with pytest.raises(ConfigError, match=says):
            async with TaskQueue("memory://", **settings):
                pass

    def test_a_missing_package_is_found_when_a_queue_opens(self, monkeypatch):
        without_package(monkeypatch, "yaml")
        settings = Settings()
        settings.update(accept_content=("json", "application/x-yaml"))
        with pytest.raises(ConfigError, match=r"aioretryq\[yaml\]"):
            check_message_formats(settings)


def test_the_limit_of_yaml_is_beyond_what_anybody_sends():
    shared = list(range(1000))
    value = [shared] * 1000
    assert here(value, "yaml") == value
    assert serializers.LARGEST_YAML > 1_000_000
    assert msgpack.version >= (1, 0)
