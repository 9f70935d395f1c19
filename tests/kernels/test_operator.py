"""What every registered operator owes torch: schema, fakes, compilation, FLOPs, memory."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from talking_heads import explain, kernels, talking_heads_attention
from talking_heads.checks import prepare
from talking_heads.kernels.flops import backward_flops, forward_flops
from talking_heads.kernels.problem import TENSORS, Problem
from tests.cases import DYNAMIC, FAST, Case

CPU = [name for name in FAST if name != "triton"]
OPCHECK = {
    "plain": Case(),
    "everything": Case(mask="float", dynamic=DYNAMIC, is_causal=True, dropout_p=0.25, layout="heads_inside"),
    "no map": Case(logits_mix=False, weights_mix=False, dtype=torch.bfloat16),
}


def problem(case: Case):
    found = prepare(**case.inputs(), **case.options())
    return found._replace(seed=torch.tensor([3, 4])) if case.dropout_p else found


def available(backend: str, case: Case) -> None:
    reason = kernels.BACKENDS[backend].refuses(problem(case))
    if reason:
        pytest.skip(f"{backend}: {reason}")


@pytest.mark.parametrize("backend", CPU)
@pytest.mark.parametrize("name", OPCHECK)
def test_opcheck(name, backend):
    available(backend, OPCHECK[name])
    arguments = problem(OPCHECK[name])
    torch.library.opcheck(getattr(torch.ops.talking_heads, backend).default, tuple(arguments))
    output, saved = getattr(torch.ops.talking_heads, backend)(*arguments)
    needs = [x is not None and x.requires_grad for x in arguments[:TENSORS]]
    backward = getattr(torch.ops.talking_heads, f"{backend}_backward").default
    inputs = [x.detach() if isinstance(x, torch.Tensor) else x for x in arguments]
    torch.library.opcheck(backward, (*inputs, saved.detach(), torch.randn_like(output), needs))


@pytest.mark.parametrize("backend", CPU)
def test_compiles_whole_with_dynamic_shapes(backend):
    available(backend, Case())
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()  # reset leaves them: other tests compile, too
    compiled = torch.compile(talking_heads_attention, fullgraph=True, dynamic=True)
    for n, m in ((7, 9), (12, 5), (19, 30)):
        case = Case(n=n, m=m, mask="float", is_causal=True)
        given, same = case.inputs(), case.inputs()
        got = compiled(**given, **case.options(), backend=backend)
        want = talking_heads_attention(**same, **case.options(), backend=backend)
        torch.testing.assert_close(got, want)
        got.sum().backward()
        want.sum().backward()
        for name in given:
            torch.testing.assert_close(
                given[name].grad, same[name].grad, msg=lambda text, name=name: f"{name} {text}"
            )
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


class Calls(TorchDispatchMode):
    """The talking_heads operators that run inside."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "talking_heads":
            self.names.append(function.name().partition("::")[2])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("backend", ["auto", *CPU])
def test_which_path_runs(backend):
    case = Case()
    if backend != "auto":
        available(backend, case)
    chosen = explain(**case.inputs(), backend=backend).backend
    assert chosen == backend or backend == "auto"
    with Calls() as calls:
        talking_heads_attention(**case.inputs(), backend=backend).sum().backward()
    assert calls.names == [chosen, f"{chosen}_backward"]


def test_the_reference_runs_no_operator_and_is_never_chosen_unasked():
    with Calls() as calls:
        talking_heads_attention(**Case().inputs(), backend="reference")
    assert calls.names == []
    assert explain(**Case().inputs()).backend != "reference"
    weights = explain(**Case().inputs(), return_weights=True)
    assert weights.backend == "reference" and "chunked" in weights.reasons and "-> reference" in str(weights)


@pytest.mark.parametrize("backend", CPU)
def test_only_inputs_and_rows_live_between_forward_and_backward(backend):
    case = Case(b=1, i=4, h=4, j=4, n=256, m=256, k=8, v=8)
    available(backend, case)
    inputs = case.inputs()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        talking_heads_attention(**inputs, backend=backend)
    new = {x.untyped_storage().data_ptr(): x.numel() for x in kept}
    for x in inputs.values():
        new.pop(x.untyped_storage().data_ptr(), None)
    assert sum(new.values()) <= 2 * case.h * case.n  # the rows' normalisers; n * m * h would be 262,144


def test_the_schema_is_the_fields_of_a_problem():
    schema = torch.ops.talking_heads.chunked.default._schema
    assert [x.name for x in schema.arguments] == list(Problem._fields)
    assert all("Tensor" in str(x.type) for x in schema.arguments[: TENSORS + 1])
    assert not any("Tensor" in str(x.type) for x in schema.arguments[TENSORS + 1 :])


@pytest.mark.parametrize("backend", CPU)
def test_flop_counter(backend):
    case = Case(b=2, i=3, h=5, j=2, n=7, m=9, k=4, v=6)
    available(backend, case)
    inputs = case.inputs()
    counter = FlopCounterMode(display=False)
    with counter:
        output = talking_heads_attention(**inputs, backend=backend)
    mac = 2 * 7 * 9 * (3 * 4 + 2 * 6 + 3 * 5 + 5 * 2)
    assert counter.get_total_flops() == 2 * mac == forward_flops(problem(case))
    with counter:
        output.sum().backward()
    scores = 2 * 7 * 9 * 3 * 4
    mixing = 2 * 7 * 9 * (3 * 5 + 5 * 2)
    assert counter.get_total_flops() == 2 * (2 * mac + scores + mixing) == backward_flops(problem(case))
