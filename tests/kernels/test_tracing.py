"""Calls that are exported, compiled or traced: one program for every size, equal to the eager call."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.export import Dim, export

from talking_heads import TalkingHeadsAttention, talking_heads_attention

from .test_operator import CPU


class Masked(nn.Module):
    """The layer with its mask as a positional argument, as tracing needs it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.attention = TalkingHeadsAttention(16, 4, mix_init="random")

    def forward(self, x, mask=None):
        return self.attention(x, attn_mask=mask)


class Plain(nn.Module):
    """The same sizes by SDPA, to compare what torch itself can do."""

    def forward(self, x, mask=None):
        x = x.unflatten(-1, (4, 4)).transpose(1, 2)
        return F.scaled_dot_product_attention(x, x, x, attn_mask=mask)


class Attend(nn.Module):
    def __init__(self, backend="auto"):
        super().__init__()
        self.backend = backend

    def forward(self, query, key, value):
        return talking_heads_attention(query, key, value, backend=self.backend)


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@torch.no_grad()
@pytest.mark.parametrize("length", [5, 20])
def test_a_trace_takes_other_sizes_and_masks(length):
    """On few rows, too, where an eager call without gradients looks at values."""
    model = Masked().eval()
    traced = torch.jit.trace(
        model, (drawn(2, length, 16), torch.ones(2, 1, length, length, dtype=torch.bool))
    )
    for batch, n in ((2, 5), (3, 33), (2, 1)):
        mask = torch.rand(batch, 1, n, n) < 0.7
        mask[0, :, 0] = False
        torch.testing.assert_close(traced(drawn(batch, n, 16), mask), model(drawn(batch, n, 16), mask))


def test_a_trace_with_gradients_passes_its_own_check():
    model = Masked()
    traced = torch.jit.trace(model, (drawn(2, 5, 16),))
    torch.testing.assert_close(traced(drawn(3, 33, 16)), model(drawn(3, 33, 16)))


@pytest.mark.parametrize("strict", [False, True])
def test_export_for_every_batch_and_length(strict):
    model = Masked().eval()
    sizes = ({0: Dim("batch"), 1: Dim("length")},)
    program = export(model, (drawn(2, 20, 16),), dynamic_shapes=sizes, strict=strict).module()
    for batch, length in ((2, 20), (3, 7), (1, 16), (2, 40), (0, 20)):
        torch.testing.assert_close(program(drawn(batch, length, 16)), model(drawn(batch, length, 16)))


def test_export_of_an_unbacked_batch_with_its_mask():
    class Selected(nn.Module):
        def __init__(self, attention):
            super().__init__()
            self.attention = attention

        def forward(self, x, chosen):
            x = x[chosen]
            mask = torch.ones(x.shape[0], 1, x.shape[1], x.shape[1], dtype=torch.bool).tril()
            return self.attention(x, mask)

    model, x = Selected(Masked()).eval(), drawn(4, 20, 16)
    program = export(model, (x, torch.tensor([True, False, True, True])), strict=False).module()
    for chosen in ([False, False, True, True], [False] * 4):
        torch.testing.assert_close(program(x, torch.tensor(chosen)), model(x, torch.tensor(chosen)))


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("empty", ["batch", "query", "memory"])
def test_exported_operator_with_nothing_to_attend(empty, backend):
    """The program was made with sizes that are not 0; it must give zeros, not divide by them."""
    query, key, value = drawn(2, 4, 20, 8), drawn(2, 4, 24, 8), drawn(2, 4, 24, 8)
    any_size = Dim.DYNAMIC
    sizes = {0: any_size}, {0: any_size, 2: any_size}, {0: any_size, 2: any_size}
    sizes = ({0: any_size, 2: any_size}, *sizes[1:])
    program = export(Attend(backend), (query, key, value), dynamic_shapes=sizes).module()
    cut = {
        "batch": (query[:0], key[:0], value[:0]),
        "query": (query[:, :, :0], key, value),
        "memory": (query, key[:, :, :0], value[:, :, :0]),
    }[empty]
    got = program(*cut)
    assert got.shape == cut[0].shape and not got.any()
    arguments = (*cut, *[None] * 9, False, 0.0, 1.0)
    assert torch.equal(getattr(torch.ops.talking_heads, backend)(*arguments)[0], got)


@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)
def test_compiled_layer_where_no_element_is_selected():
    torch._dynamo.reset()
    layer, x = Masked().eval(), drawn(4, 20, 16)
    run = torch.compile(lambda x, chosen: layer(x[chosen]), backend="aot_eager")
    for chosen in ([True, False, True, False], [False] * 4):
        chosen = torch.tensor(chosen)
        torch.testing.assert_close(run(x, chosen), layer(x[chosen]))


def test_compiled_for_every_length_in_as_few_graphs_as_sdpa():
    def graphs(module):
        torch._dynamo.reset()
        counter = CompileCounter()
        compiled = torch.compile(module, backend=counter, dynamic=True)
        for length in (20, 33, 7, 12, 64):
            compiled(drawn(2, length, 16))
        return counter.frame_count

    assert graphs(Masked()) <= graphs(Plain())


@torch.no_grad()
def test_onnx_of_a_layer(tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = Masked().eval()
    example = drawn(2, 20, 16), torch.ones(2, 1, 20, 20, dtype=torch.bool).tril()
    length = Dim("length")
    sizes = {0: Dim("batch"), 1: length}, {0: Dim("batch"), 2: length, 3: length}
    torch.onnx.export(
        model, example, tmp_path / "layer.onnx", dynamo=True, verbose=False, dynamic_shapes=sizes
    )
    session = runtime.InferenceSession(tmp_path / "layer.onnx")
    names = [x.name for x in session.get_inputs()]
    for batch, n in ((2, 20), (3, 7)):
        given = drawn(batch, n, 16), torch.ones(batch, 1, n, n, dtype=torch.bool).tril()
        (got,) = session.run(None, {name: x.numpy() for name, x in zip(names, given, strict=True)})
        torch.testing.assert_close(torch.from_numpy(got), model(*given), rtol=1e-4, atol=1e-5)
