"""Compressions: as kombu writes and reads them; nothing is expanded beyond its limit."""

import tracemalloc
from contextlib import suppress

import kombu.compression
import pytest
from forms import COMPRESSIONS, without_package
from hypothesis import given
from hypothesis import strategies as st

from aioretryq import PayloadTooLarge
from aioretryq.errors import ConfigError, EncodeError, ProtocolError
from aioretryq.message import TaskMessage
from aioretryq.protocol import compression
from aioretryq.protocol.task import encode_task

TEXT = b"a text that is worth it, " * 100


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_kombu_both_ways(name):
    ours = compression.compress(TEXT, name)
    assert len(ours) < len(TEXT)
    assert kombu.compression.decompress(ours, compression.content_type(name)) == TEXT
    theirs, mime = kombu.compression.compress(TEXT, name)
    assert mime == compression.content_type(name) == compression.checked(name)
    assert compression.decompress(theirs, mime) == TEXT


def test_every_name_that_kombu_has():
    for name, mime in kombu.compression._aliases.items():
        assert compression.content_type(name) == compression.content_type(mime) == mime


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_a_bomb_is_not_expanded(name):
    bomb = compression.compress(bytes(40_000_000), name)
    assert len(bomb) < 100_000
    for limit in (0, 1, 10_000):
        tracemalloc.start()
        try:
            with pytest.raises(ProtocolError, match=f"larger than {limit:,} bytes"):
                compression.decompress(bomb, name, limit)
            assert tracemalloc.get_traced_memory()[1] < 12_000_000  # xz needs 8 MB of its own
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_limits_are_exact(name):
    assert compression.decompress(compression.compress(TEXT, name), name, len(TEXT)) == TEXT
    with pytest.raises(ProtocolError, match="larger"):
        compression.decompress(compression.compress(TEXT, name), name, len(TEXT) - 1)
    assert compression.decompress(compression.compress(b"", name), name, 0) == b""


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_what_is_cut_off(name):
    data = compression.compress(TEXT, name)
    for end in range(len(data)):
        with pytest.raises(ProtocolError, match="Broken"):
            compression.decompress(data[:end], name)


@pytest.mark.parametrize("name", COMPRESSIONS)
@given(data=st.binary(), front=st.integers(0, 40))
def test_any_bytes_are_expanded_or_a_protocol_error(name, data, front):
    for broken in (data, compression.compress(TEXT, name)[:front] + data):
        with suppress(ProtocolError):
            compression.decompress(broken, name, 10_000)


@pytest.mark.parametrize(
    ("name", "modules"),
    [("brotli", ("brotli", "brotlicffi")), ("zstd", ("compression.zstd", "backports.zstd"))],
)
def test_a_missing_package_names_the_extra(monkeypatch, name, modules):
    data = compression.compress(TEXT, name)
    without_package(monkeypatch, *modules)
    says = r"aioretryq\[compression\]"
    with pytest.raises(ProtocolError, match=says):
        compression.decompress(data, name)
    with pytest.raises(EncodeError, match=says):
        compression.compress(TEXT, name)
    with pytest.raises(ConfigError, match=rf"{says}.*Installed are: gzip, bzip2, lzma"):
        compression.checked(name)


def test_an_unknown_name():
    with pytest.raises(ConfigError, match=r"'zst'.*mean 'zstd'.*Installed are: gzip, bzip2, lzma, brotli, zstd\."):
        compression.checked("zst")


def test_what_a_worker_would_refuse_is_not_sent():
    """A worker counts the bytes that come out."""
    message = TaskMessage(id="i", task="t", args=["x" * 10_000], compression="gzip")
    assert len(encode_task(message, tag="d", max_size=20_000)) < 2000
    with pytest.raises(PayloadTooLarge, match=r"10,0.. bytes, max_payload_bytes is 9,000"):
        encode_task(message, tag="d", max_size=9_000)
