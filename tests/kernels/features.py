"""Every form of a call under every feature of torch: what works, what decomposes, what is refused.

    python -m tests.kernels.features docs/features.md

prints the table of docs/features.md and replaces it. Each cell is a call compared with the plain equation under the same feature, and the
operators that ran are listed by a dispatch mode or read off the program:

    fused    one of this package's kernels computed it
    torch    operations of torch computed it (reference, chunked or decode path)
    refused  a UserError; its first sentence is below the table
"""

import io
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.utils._python_dispatch import TorchDispatchMode

from talking_heads import TalkingHeadsAttention, explain, talking_heads_attention
from talking_heads.errors import UserError

from ..cases import Case, arguments, plain

Call = Callable[..., Tensor]
Inputs = dict[str, Tensor]


def _case(**changes: Any) -> Case:
    return Case(**{"b": 2, "i": 4, "h": 4, "j": 4, "n": 24, "m": 24, "k": 8, "v": 8, **changes})


FORMS: dict[str, Case] = {
    "both maps": _case(),
    "one map": _case(weights_mix=False),
    "no maps": _case(logits_mix=False, weights_mix=False),
    "causal": _case(is_causal=True),
    "bool mask": _case(mask="bool", mask_shape=(1, 1, 1, 1)),
    "float mask": _case(mask="float", mask_shape=(1, 1)),
    "groups": _case(groups=2),
    "maps by query": _case(dynamic=("query_logits_mix", "query_weights_mix")),
    "maps by memory": _case(dynamic=("memory_logits_mix", "memory_weights_mix")),
    "low-rank maps": _case(dynamic=("query_logits_mix", "query_weights_mix"), rank=2),
    "weights_mix_bias": _case(bias=True),
    "one query": _case(n=1),
    "nothing to attend": _case(m=0),
    "float64": _case(dtype=torch.float64),
}


def _calls(case: Case) -> tuple[Call, Call, Inputs]:
    """(ours, the equation, inputs): functions of the inputs' tensors in order."""
    inputs = {name: x.detach() for name, x in case.inputs().items()}
    options = case.options()

    def of(function: Callable[..., Tensor]) -> Call:
        def call(*tensors: Tensor) -> Tensor:
            return function(**arguments(dict(zip(inputs, tensors, strict=True))), **options)

        return call

    return of(talking_heads_attention), of(plain), inputs


class _Watch(TorchDispatchMode):
    """Notes whether an operator of this package ran."""

    def __init__(self) -> None:
        super().__init__()
        self.fused = False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.fused |= function.namespace == "talking_heads"
        return function(*args, **(kwargs or {}))


def _floats(tensors: list[Tensor]) -> list[int]:
    return [k for k, x in enumerate(tensors) if x.is_floating_point()]


def _leaves(tensors: list[Tensor]) -> list[Tensor]:
    return [x.clone().requires_grad_() if x.is_floating_point() else x for x in tensors]


def no_grad(f: Call, x: list[Tensor]) -> Any:
    with torch.no_grad():
        return f(*x)


def backward(f: Call, x: list[Tensor]) -> Any:
    x = _leaves(x)
    return torch.autograd.grad(f(*x).sin().sum(), [x[k] for k in _floats(x)])


def double_backward(f: Call, x: list[Tensor]) -> Any:
    x = _leaves(x)
    wrt = [x[k] for k in _floats(x)]
    first = torch.autograd.grad(f(*x).sin().sum(), wrt, create_graph=True)
    return torch.autograd.grad(sum(y.sin().sum() for y in first), wrt)


def grads_batched(f: Call, x: list[Tensor]) -> Any:
    x = _leaves(x)
    output = f(*x)
    ways = torch.stack([output.detach().cos(), output.detach().sin()])
    return torch.autograd.grad(output, [x[k] for k in _floats(x)], ways, is_grads_batched=True)


def _of_floats(f: Call, x: list[Tensor]) -> tuple[Call, list[Tensor]]:
    where = _floats(x)

    def call(*tensors: Tensor) -> Tensor:
        given = list(x)
        for k, y in zip(where, tensors, strict=True):
            given[k] = y
        return f(*given)

    return call, [x[k] for k in where]


def func_grad(f: Call, x: list[Tensor]) -> Any:
    call, wrt = _of_floats(f, x)
    return torch.func.grad(lambda *y: call(*y).sin().sum(), tuple(range(len(wrt))))(*wrt)


def jvp(f: Call, x: list[Tensor]) -> Any:
    call, wrt = _of_floats(f, x)
    return torch.func.jvp(call, tuple(wrt), tuple(torch.where(y == -torch.inf, 0, y.cos()) for y in wrt))[1]


def hessian(f: Call, x: list[Tensor]) -> Any:
    """By the first query's numbers alone."""
    few = x[0][:1, :1, :1].clone()

    def loss(few: Tensor) -> Tensor:
        query = torch.cat([torch.cat([few, x[0][:1, :1, 1:]], 2), x[0][:1, 1:]], 1)
        return f(torch.cat([query, x[0][1:]]), *x[1:]).sin().sum()

    return torch.func.hessian(loss)(few)


def vmap(f: Call, x: list[Tensor]) -> Any:
    return torch.func.vmap(f)(*(torch.stack([y, y.flip(0)]) for y in x))


def per_sample(f: Call, x: list[Tensor]) -> Any:
    def loss(query: Tensor, maps: tuple[Tensor, ...]) -> Tensor:
        return f(query, *maps).sin().sum()

    queries = torch.stack([x[0], x[0].flip(0)])
    return torch.func.vmap(torch.func.grad(loss), in_dims=(0, None))(queries, tuple(x[1:]))


def autocast(f: Call, x: list[Tensor]) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        return f(*x)


def checkpoint(f: Call, x: list[Tensor]) -> Any:
    from torch.utils.checkpoint import checkpoint

    return backward(lambda *y: checkpoint(f, *y, use_reentrant=False), x)


def meta(f: Call, x: list[Tensor]) -> Any:
    return torch.empty_like(f(*(y.to("meta") for y in x)), device="cpu").zero_()


class _Module(torch.nn.Module):
    def __init__(self, f: Call) -> None:
        super().__init__()
        self.f = f

    def forward(self, *x: Tensor) -> Tensor:
        return self.f(*x)


EAGER: dict[str, Callable[[Call, list[Tensor]], Any]] = {
    "no_grad": no_grad,
    "backward": backward,
    "twice": double_backward,
    "is_grads_batched": grads_batched,
    "func.grad": func_grad,
    "func.jvp": jvp,
    "func.hessian": hessian,
    "func.vmap": vmap,
    "vmap(grad)": per_sample,
    "autocast": autocast,
    "checkpoint": checkpoint,
    "meta": meta,
}


def compiled(call: Call, x: list[Tensor]) -> tuple[Any, bool]:
    """(output and gradients, whether a kernel is in the graph) of one graph for every size."""
    torch._dynamo.reset()
    graphs: list[str] = []

    def note(graph: Any, example: Any) -> Any:
        graphs.append(graph.print_readable(print_output=False))
        return graph

    from torch._dynamo.backends.common import aot_autograd

    backend = aot_autograd(fw_compiler=note, bw_compiler=note)
    run = torch.compile(call, backend=backend, fullgraph=True, dynamic=True)
    return backward(run, x), any("talking_heads." in graph for graph in graphs)


def compiled_grad(call: Call, x: list[Tensor]) -> tuple[Any, bool]:
    torch._dynamo.reset()
    run = torch.compile(lambda *y: func_grad(call, list(y)), backend="aot_eager")
    return run(*x), False


def exported(call: Call, x: list[Tensor]) -> tuple[Any, bool]:
    program = torch.export.export(_Module(call), tuple(x))
    return program.module()(*x), "talking_heads." in str(program.graph)


def traced(call: Call, x: list[Tensor]) -> tuple[Any, bool]:
    program = torch.jit.trace(_Module(call), tuple(x), check_trace=False)
    return program(*x), "talking_heads::" in str(program.inlined_graph)


def onnx(call: Call, x: list[Tensor]) -> tuple[Any, bool]:
    import onnxruntime

    with redirect_stdout(io.StringIO()):
        program = torch.onnx.export(_Module(call), tuple(x), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    names = [y.name for y in session.get_inputs()]
    given = {name: y.numpy() for name, y in zip(names, x, strict=True)}
    return torch.from_numpy(session.run(None, given)[0]), False


PROGRAMS: dict[str, Callable[[Call, list[Tensor]], tuple[Any, bool]]] = {
    "compile": compiled,
    "compile(func.grad)": compiled_grad,
    "export": exported,
    "jit.trace": traced,
    "ONNX": onnx,
}


def try_cell(form: str, feature: str) -> str:
    """What docs/features.md says of one cell: fused, torch, or refused: the line. Raises AssertionError where the numbers differ."""
    ours, equation, inputs = _calls(FORMS[form])
    x = list(inputs.values())
    try:
        if feature in EAGER:
            EAGER[feature](ours, x)  # as a user's call runs: a dispatch mode may change the path
            found = EAGER[feature](ours, x)
            with _Watch() as watch:
                EAGER[feature](ours, x)
            fused = watch.fused
            if feature == "no_grad":  # the mode above would change the choice
                call = arguments(inputs)
                fused = explain(**call, **FORMS[form].options()).backend in ("cpu", "triton")
        else:
            found, fused = PROGRAMS[feature](ours, x)
    except UserError as error:
        return f"refused: {error}"
    if feature == "meta":
        wanted: Any = torch.zeros_like(equation(*x))
    else:
        eager = {"compile": backward, "compile(func.grad)": func_grad} | EAGER
        wanted = eager.get(feature, no_grad)(equation, x)
    bound = {"autocast": 3e-2, "twice": 2e-3, "func.hessian": 2e-3}.get(feature, 3e-4)
    loose = {"rtol": bound, "atol": bound}
    for y, z in zip(_tuple(found), _tuple(wanted), strict=True):
        torch.testing.assert_close(y, z, check_dtype=feature not in ("autocast", "ONNX"), **loose)
    return "fused" if fused else "torch"


def _tuple(x: Any) -> tuple[Tensor, ...]:
    return (x,) if isinstance(x, Tensor) else tuple(x)


def others() -> list[tuple[str, str]]:
    """(tensor or option, what comes of it)."""
    inputs = _calls(FORMS["both maps"])[2]
    x = list(inputs.values())
    mask = causal_lower_right(24, 24)

    def attempt(call: Callable[[], Any]) -> str:
        try:
            call()
        except (UserError, TypeError) as error:
            return f"refused: {error}"
        return "works"

    layer = TalkingHeadsAttention(32, 4)
    return [
        ("`torch.nn.attention.bias` masks", attempt(lambda: talking_heads_attention(*x, attn_mask=mask))),
        ("3-D inputs", attempt(lambda: talking_heads_attention(*(y[0] for y in x[:3]), *x[3:]))),
        ("5-D inputs", attempt(lambda: talking_heads_attention(*(y[None] for y in x[:3]), *x[3:]))),
        (
            "nested tensors",
            attempt(
                lambda: talking_heads_attention(
                    *(torch.nested.nested_tensor(list(y), layout=torch.jagged) for y in x[:3]), *x[3:]
                )
            ),
        ),
        (
            "sparse tensors",
            attempt(lambda: talking_heads_attention(x[0].to_sparse(), *x[1:])),
        ),
        (
            "a scale that requires grad",
            attempt(lambda: talking_heads_attention(*x, scale=torch.tensor(0.3, requires_grad=True))),
        ),
        (
            "a dropout_p that requires grad",
            attempt(lambda: talking_heads_attention(*x, dropout_p=torch.tensor(0.3, requires_grad=True))),  # type: ignore[arg-type]
        ),
        ("dropout_p=1.0", attempt(lambda: talking_heads_attention(*x, dropout_p=1.0))),
        ("`torch.jit.script`", attempt(lambda: _script(layer))),
    ]


def _script(layer: torch.nn.Module) -> None:
    try:
        torch.jit.script(layer)
    except Exception as error:  # torch's own, of many classes
        raise UserError(
            "torch.jit.script cannot compile it", type(error).__name__, "use torch.export"
        ) from None


def table() -> str:
    features = [*EAGER, *PROGRAMS]
    notes: dict[str, int] = {}
    lines = ["| | " + " | ".join(features) + " |", "|---|" + "---|" * len(features)]
    for form in FORMS:
        cells = []
        for feature in features:
            print(form, feature, file=sys.stderr, flush=True)
            try:
                found = try_cell(form, feature)
            except Exception as error:
                found = f"WRONG {type(error).__name__}: {str(error).splitlines()[0]}"
                print(found, file=sys.stderr)
            if ": " in found:
                verdict, _, why = found.partition(": ")
                found = f"{verdict} [{notes.setdefault(why, len(notes) + 1)}]"
            cells.append(found)
        lines.append(f"| {form} | " + " | ".join(cells) + " |")
    lines += ["", *(f"[{k}] {why}" for why, k in notes.items())]
    lines += ["", "| | |", "|---|---|", *(f"| {name} | {found} |" for name, found in others())]
    return "\n".join(lines)


if __name__ == "__main__":
    page = Path(sys.argv[1])
    begin, end = "<!-- features -->", "<!-- end -->"
    found = table()
    print(found)
    page.write_text(
        re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{found}\n{end}", page.read_text(), flags=re.DOTALL)
    )
