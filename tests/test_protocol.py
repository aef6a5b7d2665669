"""Messages: what is said arrives as it was said; anything else is refused."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from mnist_bench.records import Cell, CompileOptions, DataSet, ModelEntry, StepTimes, TrialSpec, Variant, encode
from mnist_bench.run import protocol
from mnist_bench.run.protocol import (
    PROTOCOL_VERSION,
    Block,
    BlockDone,
    Prepare,
    Reply,
    Request,
    decode_reply,
    decode_request,
)

FLOATS = st.floats(0, 1e11)
TIMES = st.builds(StepTimes, p50_ms=FLOATS, p95_ms=FLOATS, p99_ms=FLOATS, count=st.integers(0, 10**9))
TEXT = st.text(max_size=60)
SPEC = TrialSpec(
    id="mine.build/cuda:1/b100/compile-max/s7@A",
    side="A",
    cell=Cell(model="mine.build", device="cuda:1", batch_size=100, variant="compile-max"),
    seed=2**32 - 1,
    model=ModelEntry(name="mine.build", model="mine:build", optimizer="sgd", lr=0.01),
    variant=Variant(
        name="compile-max", execution="compile", compile=CompileOptions(scope="step", mode="max-autotune"), threads=2
    ),
    recipe="tutorial",
    epochs=3,
    data=DataSet(name="mnist", root="/data ä", sha256="0" * 64),
    memory_bytes=17 << 30,
    plugin_path="/home/x",
    allow_plugins=True,
    cache_dir="/tmp/x",
    samples_path="/tmp/y.npy",
)
st.register_type_strategy(float, FLOATS)
st.register_type_strategy(str, TEXT)
st.register_type_strategy(StepTimes, TIMES)


def built(kind: type) -> st.SearchStrategy:  # type: ignore[type-arg]
    """Messages of one kind, any values of the right types in them; ``type`` is the kind's own."""
    given_fields = {"spec": st.just(SPEC), "protocol": st.integers()}
    if kind is protocol.Finished:
        given_fields["numerics"] = st.dictionaries(TEXT, st.one_of(TEXT, st.booleans(), st.integers(), FLOATS))
    fields = {field.name for field in structs.fields(kind)}
    own = {name: strategy for name, strategy in given_fields.items() if name in fields}
    return st.builds(kind, **own)


@given(st.one_of(*map(built, Request.__args__)))
def test_requests_arrive_as_they_were_sent(request: Request) -> None:
    line = encode(request)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_request(line) == request


@given(st.one_of(*map(built, Reply.__args__)))
def test_replies_arrive_as_they_were_sent(reply: Reply) -> None:
    line = encode(reply)
    assert line.count(b"\n") == 1
    assert decode_reply(line) == reply


def test_paths_that_are_no_unicode_arrive() -> None:
    spec = dataclasses.replace(SPEC, plugin_path="/caf\udce9", samples_path="/caf\udce9/y.npy")
    assert decode_request(encode(Prepare(spec=spec))) == Prepare(spec=spec)


@pytest.mark.parametrize("figure", [math.nan, math.inf, -math.inf])
def test_what_is_no_figure_is_refused(figure: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(BlockDone(steps=1, seconds=figure))


def test_kinds_are_told_apart_by_their_type() -> None:
    for union in (Request, Reply):
        names = [kind.__struct_config__.tag for kind in union.__args__]
        assert len(set(names)) == len(names)


def test_the_version_travels_with_the_first_request() -> None:
    assert json.loads(encode(Prepare(spec=SPEC)))["protocol"] == PROTOCOL_VERSION


GARBAGE = [
    b"",
    b"\n",
    b"null\n",
    b"[]\n",
    b'"block_done"\n',
    b"{}\n",
    b'{"type": "block_done"}\n',
    b'{"type": "block_done", "steps": 1}\n',
    b'{"type": "block_done", "steps": "many", "seconds": 1.0}\n',
    b'{"type": "block_done", "steps": 1.5, "seconds": 1.0}\n',
    b'{"type": "block_done", "steps": 1, "seconds": NaN}\n',
    b'{"type": "unheard_of", "steps": 1, "seconds": 1.0}\n',
    b'{"type": "failed", "kind": "tired", "reason": ""}\n',
    b'{"type": "failed", "kind": "failed"}\n',
    b'{"type": "block", "seed": 1}\n',  # a request is no reply
    b'{"type": "block_done", "steps": 1, "seconds": 1.0}{"type": "block_done", "steps": 1, "seconds": 1.0}\n',
    b'{"type": "block_done", "steps": 1, "seconds": 1.0\n',
    b"\xff\xfe\x00\n",
    b"Traceback (most recent call last):\n",
    b"[" * 10_000 + b"\n",
]


@pytest.mark.parametrize("line", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_no_reply(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_reply(line)


@given(st.binary(max_size=200))
def test_noise_is_neither(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_reply(line)
    with pytest.raises(ValueError, match=r"."):
        decode_request(line)


def test_a_reply_is_no_request() -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_request(encode(BlockDone(steps=1, seconds=1.0)))
    with pytest.raises(ValueError, match=r"."):
        decode_reply(encode(Block(seed=1)))
