"""What takes a plain model to other places takes the converted one: torch.export, torch.compile, ONNX, tracing."""

import io

import pytest
import torch
import transformers
from torch import nn

from talking_heads.hf import convert
from tests.hf.models import model
from tests.hf.test_named import stir

DYNAMIC = ("query_logits", "memory_logits", "query_weights", "memory_weights")
SEEN = ("bert", "gpt2", "t5", "bart")


class Logits(nn.Module):
    """A model as a function of tensors."""

    def __init__(self, name, **options):
        super().__init__()
        self.model = model(name).float()
        convert(self.model, **options)
        stir(self.model)
        self.crossed = self.model.config.is_encoder_decoder
        self.more = {} if name == "bert" else {"use_cache": False}

    def forward(self, ids, mask, *decoder):
        more = self.more | ({"decoder_input_ids": decoder[0]} if self.crossed else {})
        return self.model(input_ids=ids, attention_mask=mask, **more).logits


def inputs(name, batch, length):
    draw = torch.Generator().manual_seed(length)
    ids = torch.randint(5, 60, (batch, length), generator=draw)
    mask = torch.ones_like(ids)
    mask[0, : length // 3] = 0  # on the left
    decoder = (torch.randint(5, 60, (batch, length - 2), generator=draw),) if name in ("t5", "bart") else ()
    return ids, mask, *decoder


def axes(name):
    batch, length, short = (torch.export.Dim(x, min=2, max=m) for x, m in (("b", 8), ("n", 32), ("m", 32)))
    decoder = (({0: batch, 1: short},),) if name in ("t5", "bart") else ()
    return ({0: batch, 1: length}, {0: batch, 1: length}, *decoder)


def compare(got, want, mask, name):
    assert got.isfinite().all()
    kept = slice(None) if name in ("t5", "bart") else mask.bool()
    torch.testing.assert_close(got[kept], want[kept], rtol=1e-4, atol=1e-4)


CASES = [
    pytest.param(
        name, options, marks=() if quick else pytest.mark.slow, id=f"{name}{'-dynamic' if options else ''}"
    )
    for name in SEEN
    for options, quick in (({}, name in ("bert", "t5")), ({"dynamic": DYNAMIC}, name == "gpt2"))
]


@pytest.mark.parametrize(("name", "options"), CASES)
@torch.no_grad()
def test_one_program_for_a_range_of_lengths(name, options):
    made = Logits(name, **options)
    program = torch.export.export(made, inputs(name, 2, 9), dynamic_shapes=axes(name)).module()
    for batch, length in ((2, 9), (3, 24)):
        given = inputs(name, batch, length)
        compare(program(*given), made(*given), given[1], name)


@pytest.mark.parametrize(
    "name", ["bert", *(pytest.param(x, marks=pytest.mark.slow) for x in ("gpt2", "t5", "bart"))]
)
@torch.no_grad()
def test_onnx_run_by_onnxruntime(name):
    onnxruntime = pytest.importorskip("onnxruntime")
    made = Logits(name)
    stored = io.BytesIO()
    program = torch.onnx.export(
        made, inputs(name, 2, 9), dynamo=True, dynamic_shapes=axes(name), verbose=False
    )
    stored.write(program.model_proto.SerializeToString())
    session = onnxruntime.InferenceSession(stored.getvalue(), providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_inputs()]
    for batch, length in ((2, 9), (3, 24)):
        given = inputs(name, batch, length)
        (got,) = session.run(None, {n: x.numpy() for n, x in zip(names, given, strict=True)})
        compare(torch.from_numpy(got), made(*given), given[1], name)


@pytest.mark.parametrize("name", [*SEEN, "llama"])
@pytest.mark.parametrize("options", [{}, {"dynamic": DYNAMIC}], ids=["static", "dynamic"])
@torch.no_grad()
def test_compiled_as_one_graph(name, options):
    made = Logits(name, **options)
    given = inputs(name, 2, 9)
    torch.compiler.reset()
    compiled = torch.compile(made, fullgraph=True, backend="eager")
    compare(compiled(*given), made(*given), given[1], name)


@pytest.mark.parametrize("options", [{}, {"dynamic": DYNAMIC}], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", ["t5", "llama"])
@torch.no_grad()
def test_compiled_as_one_graph_with_a_cache(name, options):
    made = Logits(name, **options)
    made.more = {}
    given = inputs(name, 2, 9)
    torch.compiler.reset()
    compiled = torch.compile(made, fullgraph=True, backend="eager")
    compare(compiled(*given), made(*given), given[1], name)


@pytest.mark.parametrize("kind", ["DynamicCache", "StaticCache"])
@torch.no_grad()
def test_compiled_steps_keep_the_maps_of_positions_in_a_cache(kind):
    made = Logits("llama", dynamic=DYNAMIC).model
    whole, _ = inputs("llama", 2, 9)
    want = made(input_ids=whole, use_cache=False).logits
    torch.compiler.reset()
    compiled = torch.compile(made, fullgraph=True, backend="eager", dynamic=True)
    options = {"max_cache_len": 12} if kind == "StaticCache" else {}
    cache = getattr(transformers, kind)(config=made.config, **options)
    got = [compiled(input_ids=ids, past_key_values=cache).logits for ids in whole.split((4, 1, 4), 1)]
    torch.testing.assert_close(torch.cat(got, 1), want, rtol=1e-4, atol=1e-4)
    cache.reorder_cache(torch.tensor([1, 0]))
    ids = whole.flip(0)[:, :1]
    longer = made(input_ids=torch.cat((whole.flip(0), ids), 1), use_cache=False).logits[:, -1:]
    torch.testing.assert_close(
        made(input_ids=ids, past_key_values=cache).logits, longer, rtol=1e-4, atol=1e-4
    )


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_traced_on_short_texts_and_run_on_padded_long_ones():
    made = Logits("gpt2")
    short = inputs("gpt2", 2, 6)
    traced = torch.jit.trace(made, (short[0], torch.ones_like(short[1])))
    given = inputs("gpt2", 2, 20)
    compare(traced(*given), made(*given), given[1], "gpt2")
