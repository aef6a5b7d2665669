"""Messages: what is said arrives as it was said; anything else is refused."""

from dataclasses import replace
from typing import Any

import pytest
from group_kit import make_spec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from mnist_bench.records import CompileOptions, ModelEntry, Peaks, StepTimes, Variant, encode
from mnist_bench.running import protocol
from mnist_bench.running.protocol import Block, Reply, Request, decode_reply, decode_request

SPEC = replace(
    make_spec("cuda:1", "compile-max", seed=2**32 - 1),
    side="A",
    model=ModelEntry(name="mine.build", model="mine:build", optimizer="sgd", lr=0.01),
    variant=Variant(name="compile-max", execution="compile", compile=CompileOptions(scope="step"), threads=2),
    memory_bytes=17 << 30,
    allow_plugins=True,
    samples_path="/tmp/y.npy",
)
ODD = replace(SPEC, plugin_path="/caf\udce9", samples_path="/caf\udce9/y.npy")  # paths that are no Unicode
FLOATS, TEXT = st.floats(0, 1e11), st.text(max_size=60)
st.register_type_strategy(float, FLOATS)
st.register_type_strategy(str, TEXT)
st.register_type_strategy(
    StepTimes, st.builds(StepTimes, p50_ms=FLOATS, p95_ms=FLOATS, p99_ms=FLOATS, count=st.integers(0, 10**9))
)
COUNTS = st.integers(0, 10**13)
st.register_type_strategy(Peaks, st.builds(Peaks, host_bytes=COUNTS, device_bytes=st.none() | COUNTS))


def built(kind: type) -> st.SearchStrategy[Any]:
    """Messages of one kind, any values of the right types in them; ``type`` is the kind's own."""
    own: dict[str, st.SearchStrategy[Any]] = {"spec": st.sampled_from([SPEC, ODD]), "protocol": st.integers()}
    own["data"] = st.sampled_from([SPEC.data, replace(SPEC.data, name="a.b:c", mean=(0.1, 0.2), shape=(2, 5, 6))])
    if kind is protocol.Finished:
        own["numerics"] = st.dictionaries(TEXT, st.one_of(TEXT, st.booleans(), st.integers(), FLOATS))
    fields = {field.name for field in structs.fields(kind)}
    return st.builds(kind, **{name: strategy for name, strategy in own.items() if name in fields})


@given(st.one_of(*(built(kind) for kind in (*Request.__args__, *Reply.__args__))))
def test_messages_arrive_as_they_were_sent(message):
    line = encode(message)
    assert line.index(b"\n") == len(line) - 1
    assert (decode_request if isinstance(message, Request) else decode_reply)(line) == message


DONE = b'{"type": "block_done", "steps": 1, "seconds": 1.0}'
GARBAGE = [
    *(b"", b"null", b"{}", b"\xff\xfe\x00", b"Traceback (most recent call last):", b"[" * 10_000),
    *(DONE.replace(b"1,", b"1.5,"), DONE.replace(b"1.0", b"NaN"), DONE.replace(b"block_done", b"unheard_of")),
    *(DONE + DONE, DONE[:-1], encode(Block(seed=1))),  # a request is no reply
]


@pytest.mark.parametrize("line", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_no_reply(line):
    with pytest.raises(ValueError, match=r"."):
        decode_reply(line + b"\n")
