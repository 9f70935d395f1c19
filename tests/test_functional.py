"""The operator's conventions, and one line for each mistake."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from talking_heads import LowRankMix, kernels, talking_heads_attention
from talking_heads.errors import UserError
from tests.cases import DYNAMIC, FAST, Case, plain


def tensors(b=2, i=4, j=4, n=5, m=7, k=8, v=8, **options):
    options.setdefault("dtype", torch.float64)
    return (
        torch.randn(b, i, n, k, **options),
        torch.randn(b, i, m, k, **options),
        torch.randn(b, j, m, v, **options),
    )


def attend(*args, backend, **kwargs):
    """The call; skips where a backend that may refuse does."""
    try:
        return talking_heads_attention(*args, backend=backend, **kwargs)
    except ValueError as refusal:
        if "cannot do this call" not in str(refusal) or backend in ("chunked", "reference"):
            raise
        pytest.skip(str(refusal))


@pytest.mark.parametrize("backend", kernels.ORDER)
def test_grouped_queries(backend):
    q = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    k, v = torch.randn(2, 3, 7, 4, dtype=torch.float64), torch.randn(2, 2, 7, 4, dtype=torch.float64)
    got = attend(q, k, v, enable_gqa=True, backend=backend)
    want = F.scaled_dot_product_attention(q, k.repeat_interleave(2, 1), v.repeat_interleave(3, 1))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("backend", kernels.ORDER)
def test_grouped_maps_are_blocks_on_the_diagonal(backend):
    q, k, v = tensors(j=6)
    logits, weights = torch.randn(2, 2, 3, dtype=torch.float64), torch.randn(3, 2, 2, dtype=torch.float64)
    got = attend(q, k, v, logits, weights, backend=backend)
    want = plain(q, k, v, torch.block_diag(*logits), torch.block_diag(*weights))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("backend", kernels.ORDER)
def test_maps_keep_their_dtype_beside_bfloat16_heads(backend):
    q, k, v = (x.requires_grad_() for x in tensors(dtype=torch.bfloat16))
    mix = torch.eye(4, requires_grad=True)
    got = attend(q, k, v, mix, backend=backend)
    got.sum().backward()
    assert got.dtype == q.grad.dtype == torch.bfloat16 and mix.grad.dtype == torch.float32


@pytest.mark.parametrize("backend", FAST)
def test_autocast(backend):
    q, k, v = (x.requires_grad_() for x in tensors(dtype=torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        got = attend(q, k, v, torch.eye(4), backend=backend)
    assert got.dtype == torch.bfloat16
    got.float().sum().backward()
    assert q.grad.dtype == torch.float32
    want = talking_heads_attention(*(x.bfloat16() for x in (q, k, v)), torch.eye(4), backend=backend)
    assert torch.equal(got, want)
    outside, q.grad = q.grad, None
    with torch.autocast("cpu", torch.bfloat16):
        attend(q, k, v, torch.eye(4), backend=backend).float().sum().backward()
    assert torch.equal(q.grad, outside)


@pytest.mark.parametrize("backend", kernels.ORDER)
@pytest.mark.parametrize("empty", ["batch", "query", "memory"])
def test_nothing_to_attend(empty, backend):
    sizes = {"batch": {"b": 0}, "query": {"n": 0}, "memory": {"m": 0}}[empty]
    leaves = [x.requires_grad_() for x in tensors(**sizes)]
    mix = torch.eye(4, dtype=torch.float64, requires_grad=True)
    output = attend(*leaves, mix, mix, backend=backend)
    assert output.shape == (*leaves[0].shape[:3], 8) and not output.any()
    output.sum().backward()
    assert all(x.grad is not None and not x.grad.any() for x in (*leaves, mix))


@pytest.mark.parametrize("backend", kernels.ORDER)
@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_what_is_masked_may_hold_anything(poison, backend):
    q, k, v = tensors()
    mix = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)
    seen = torch.ones(5, 7, dtype=torch.bool)
    seen[:, 3] = False
    seen[0, 5] = False
    want = attend(q, k, v, mix, mix, attn_mask=seen, backend=backend)
    for place in (k, v):
        spoilt = [x.clone() for x in (k, v)]
        spoilt[0 if place is k else 1][:, :, 3] = poison
        leaf = q.clone().requires_grad_()
        got = attend(leaf, *spoilt, mix, mix, attn_mask=seen, backend=backend)
        torch.testing.assert_close(got, want)
        got.sum().backward()
        assert leaf.grad.isfinite().all() and mix.grad.isfinite().all()
        spoilt = [x.clone() for x in (k, v)]
        spoilt[0 if place is k else 1][1, 2, 5] = poison  # query 0 alone may not see position 5
        got = attend(q, *spoilt, mix, mix, attn_mask=seen, backend=backend)
        torch.testing.assert_close(got[:, :, 0], want[:, :, 0])
        assert not got[1, 2, 1:].isfinite().all(-1).any() and got[0].isfinite().all()


@pytest.mark.parametrize("backend", kernels.ORDER)
def test_dropout_is_drawn_from_torch_and_keeps_the_mean(backend):
    q, k, _ = tensors(b=1, n=64, m=300)
    v = torch.ones(1, 4, 300, 1, dtype=torch.float64)
    torch.manual_seed(5)
    first = attend(q, k, v, dropout_p=0.4, backend=backend)
    second = attend(q, k, v, dropout_p=0.4, backend=backend)
    torch.manual_seed(5)
    again = attend(q, k, v, dropout_p=0.4, backend=backend)
    assert torch.equal(first, again) and not torch.equal(first, second)
    assert abs(first.mean().item() - 1) < 0.02 and first.std() > 0.01


def test_returned_weights():
    case = Case(mask="dead", dropout_p=0.5)
    inputs = case.inputs()
    output, weights, mixed = talking_heads_attention(**inputs, **case.options(), return_weights=True)
    assert weights.shape == (case.b, case.h, case.n, case.m) and mixed.shape == (
        case.b,
        case.j,
        case.n,
        case.m,
    )
    total = weights.sum(-1)
    assert ((total - 1).abs().min(total.abs()) < 1e-5).all()
    torch.testing.assert_close(mixed, torch.einsum("bhnm,hj->bjnm", weights, inputs["weights_mix"]))
    assert output.shape == (case.b, case.j, case.n, case.v)


MISTAKES = {
    "three axes": (
        lambda a: a | {"query": a["query"][0]},
        "key must be [batch, heads, positions, size] like query",
    ),
    "two axes": (lambda a: a | {"query": a["query"][0, 0]}, "query must be [batch, heads, positions, size]"),
    "head_dim": (
        lambda a: a | {"key": a["key"][..., :3]},
        "key must be [batch 2, heads, memory_len, head_dim 4]",
    ),
    "key heads": (lambda a: a | {"key": a["key"][:, :2]}, "key must have query's 3 heads"),
    "memory": (lambda a: a | {"value": a["value"][:, :, :4]}, "value must be [batch 2, heads, memory_len 9"),
    "value heads": (
        lambda a: a | {"value": a["value"][:, :1]},
        "value must have 2 heads, as weights_mix gives",
    ),
    "map transposed": (lambda a: a | {"logits_mix": a["logits_mix"].mT}, "logits_mix must be [3, out]"),
    "weights map": (lambda a: a | {"weights_mix": torch.ones(4, 2)}, "weights_mix must be [5, out]"),
    "map axes": (
        lambda a: a | {"weights_mix": torch.ones(5)},
        "[in, out] or [groups, in/groups, out/groups]",
    ),
    "map of ints": (lambda a: a | {"weights_mix": torch.ones(5, 2).int()}, "must have a float dtype"),
    "dynamic": (
        lambda a: a | {"query_logits_mix": torch.ones(2, 9, 3, 5)},
        "query_logits_mix must be [batch 2, qu",
    ),
    "mask of ints": (lambda a: a | {"attn_mask": torch.ones(7, 9).long()}, "attn_mask must be bool"),
    "mask shape": (
        lambda a: a | {"attn_mask": torch.ones(2, 9).bool()},
        "attn_mask must broadcast to [batch 2, 5",
    ),
    "mask axes": (lambda a: a | {"attn_mask": torch.ones(1, 1, 1, 7, 9).bool()}, "attn_mask must broadcast"),
    "mixed dtypes": (lambda a: a | {"key": a["key"].double()}, "must have one dtype"),
    "integers": (
        lambda a: {**a, **{n: a[n].int() for n in ("query", "key", "value")}},
        "must have one dtype",
    ),
    "dropout": (lambda a: a | {"dropout_p": 1.5}, "dropout_p must be between 0 and 1"),
    "bias and mask": (lambda a: a | {"weights_mix_bias": torch.ones(2), "is_causal": True}, "would leak"),
    "bias": (lambda a: a | {"weights_mix_bias": torch.ones(3)}, "weights_mix_bias must be [2 value heads]"),
    "gqa": (
        lambda a: a | {"key": a["key"][:, :2], "enable_gqa": True},
        "key heads must divide query heads (3)",
    ),
    "backend": (lambda a: a | {"backend": "flash"}, "backend must be one of"),
    "mask as fourth": (
        lambda a: a | {"logits_mix": torch.ones(7, 9, dtype=torch.bool)},
        "pass a mask as attn_mask",
    ),
    "float mask as fourth": (lambda a: a | {"logits_mix": torch.ones(7, 9)}, "pass a mask as attn_mask"),
    "scale of each head": (lambda a: a | {"scale": torch.ones(3)}, "scale must be one number; got shape [3]"),
    "scale of text": (lambda a: a | {"scale": "auto"}, "scale must be a number; got 'auto'"),
    "learned dropout": (
        lambda a: a | {"dropout_p": torch.nn.Parameter(torch.tensor(0.1))},
        "dropout_p must be a number; got a Parameter",
    ),
    "mask as is_causal": (
        lambda a: a | {"is_causal": torch.ones(7, 9).bool()},
        "is_causal must be True or False; got a tensor of shape [7, 9]; pass a mask as attn_mask",
    ),
    "bias and causal": (
        lambda a: a | {"weights_mix_bias": torch.ones(2), "is_causal": True},
        "got it with is_causal; drop the bias or is_causal",
    ),
    "sparse mask": (
        lambda a: a | {"attn_mask": torch.ones(7, 9).bool().to_sparse()},
        "attn_mask must be a dense tensor; got layout sparse_coo",
    ),
    "nested": (
        lambda a: a | {"query": torch.nested.nested_tensor(list(a["query"]), layout=torch.jagged)},
        "query must be an ordinary tensor, not a subclass; got a NestedTensor; pad it",
    ),
    "a subclass": (
        lambda a: a | {"value": a["value"].as_subclass(type("Tagged", (torch.Tensor,), {}))},
        "value must be an ordinary tensor, not a subclass; got a Tagged",
    ),
    "another batch axis": (
        lambda a: a | {"query": a["query"][None], "key": a["key"][None], "value": a["value"][None, :1]},
        "value must have query's batch axes [1, 2]",
    ),
    "no tensor": (lambda a: a | {"key": [1.0]}, "key must be a tensor"),
    "weights": (lambda a: a | {"return_weights": True, "backend": "chunked"}, 'backend="reference" can'),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_says_what_must_hold_what_came_and_the_mend(name):
    change, expected = MISTAKES[name]
    arguments = change(Case().inputs())
    with pytest.raises((ValueError, TypeError)) as caught:
        talking_heads_attention(**arguments)
    message = str(caught.value)
    assert expected in message and "; got " in message and message.count("; ") >= 2 and "\n" not in message


def test_the_import_needs_torch_only():
    import subprocess
    import sys

    code = """
import sys
for name in ("transformers", "typer", "rich", "triton", "matplotlib", "scipy", "datasets"):
    sys.modules[name] = None  # importing it raises ImportError, as where it is not installed
import torch, talking_heads
# it would take as long as all else; older versions of torch may import it themselves
assert "torch._dynamo" not in sys.modules or torch.__version__ < "2.13"
x = torch.randn(1, 2, 3, 4)
talking_heads.talking_heads_attention(x, x, x, torch.eye(2))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dynamic_names_are_the_operators():
    from talking_heads.nn.mixing import DYNAMIC as layer_names

    assert tuple(f"{name}_mix" for name in layer_names) == DYNAMIC


@pytest.mark.parametrize(
    "down, up, diagonal, words",
    [
        ((1, 5, 2, 4), (1, 5, 3, 4), (1, 5, 4), r"query_logits_mix.up must be \[1, 5, 2, 4\] like down"),
        ((1, 5, 2, 4), (1, 5, 2, 4), (1, 5, 1, 4), r"query_logits_mix.diagonal must be \[1, 5, 4\]"),
        ((1, 6, 2, 4), (1, 6, 2, 4), None, r"must be \[batch 1, query_len 5, rank, heads 4\]"),
        ((1, 5, 0, 4), (1, 5, 0, 4), None, "give a rank of at least 1"),
        ((5, 2, 4), (5, 2, 4), None, r"query_logits_mix.down must be \[batch, positions, rank, heads\]"),
    ],
)
def test_a_low_rank_map_of_a_wrong_shape_is_refused(down, up, diagonal, words):
    x = torch.randn(1, 4, 5, 8)
    mix = LowRankMix(torch.randn(down), torch.randn(up), None if diagonal is None else torch.randn(diagonal))
    with pytest.raises(UserError, match=words):
        talking_heads_attention(x, x, x, query_logits_mix=mix)


def test_a_low_rank_map_equals_its_full_matrix_with_any_batch_axes():
    x = torch.randn(2, 3, 4, 5, 8)
    down, up, diagonal = torch.randn(2, 3, 5, 2, 4), torch.randn(2, 3, 5, 2, 4), torch.randn(2, 3, 5, 4)
    full = down.mT @ up + torch.diag_embed(diagonal)
    want = talking_heads_attention(x, x, x, query_weights_mix=full)
    torch.testing.assert_close(
        talking_heads_attention(x, x, x, query_weights_mix=LowRankMix(down, up, diagonal)), want
    )


def test_masks_of_torch_act_as_in_sdpa():
    from torch.nn.attention.bias import causal_lower_right, causal_upper_left

    q, k, v = tensors(n=5, m=7)
    for make in (causal_upper_left, causal_lower_right):
        for mask in (make(5, 7), make(5, 5)):
            m = mask.seq_len_kv
            got = talking_heads_attention(q, k[:, :, :m], v[:, :, :m], attn_mask=mask)
            want = F.scaled_dot_product_attention(q, k[:, :, :m], v[:, :, :m], attn_mask=mask)
            torch.testing.assert_close(got, want.as_subclass(torch.Tensor))
    with pytest.raises(UserError, match="attn_mask must be for 5 queries and 7 memory positions"):
        talking_heads_attention(q, k, v, attn_mask=causal_upper_left(5, 5))


@pytest.mark.parametrize("batch", [(), (2, 3), (1, 2, 2)], ids=str)
def test_any_number_of_batch_axes(batch):
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64)  # noqa: E731
    q, k, v = draw(*batch, 4, 5, 8), draw(*batch, 4, 7, 8), draw(*batch, 4, 7, 6)
    mix, by_query = draw(4, 4), draw(*batch, 5, 4, 4)
    masks = [None, draw(5, 7), draw(4, 1, 7), draw(*batch[:-1], 1, 4, 5, 7) if batch else draw(1, 5, 7)]
    for mask in masks:
        got = talking_heads_attention(q, k, v, mix, mix, attn_mask=mask, query_logits_mix=by_query)
        assert got.shape == (*batch, 4, 5, 6)
        flat = [x.reshape(-1, *x.shape[-3:]) for x in (q, k, v)]
        whole = None if mask is None else mask.expand(*batch, 4, 5, 7).reshape(-1, 4, 5, 7)
        want = talking_heads_attention(
            *flat, mix, mix, attn_mask=whole, query_logits_mix=by_query.reshape(-1, 5, 4, 4)
        )
        torch.testing.assert_close(got, want.reshape(got.shape))
        plain = talking_heads_attention(q, k, v, attn_mask=mask)
        torch.testing.assert_close(plain, F.scaled_dot_product_attention(q, k, v, attn_mask=mask))


@pytest.mark.parametrize("backend", kernels.ORDER)
def test_dropout_of_everything_gives_zeros(backend):
    leaves = [x.requires_grad_() for x in tensors()]
    output = attend(*leaves, dropout_p=1.0, backend=backend)
    assert not output.any()
    output.sum().backward()
    assert not any(x.grad.any() for x in leaves)


def test_tensors_on_a_mesh_are_refused_by_name():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        query = distribute_tensor(torch.randn(2, 4, 5, 8), init_device_mesh("cpu", (1,)), [Shard(1)])
        key, value = torch.randn(2, 2, 4, 5, 8)
        with pytest.raises(UserError, match=r"query must be .*; got a DTensor; .*\.to_local\(\)"):
            talking_heads_attention(query, key, value)
    finally:
        dist.destroy_process_group()
