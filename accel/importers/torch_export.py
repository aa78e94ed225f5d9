"""PyTorch modules as workloads, by ``torch.export`` on the meta device: shapes only, no arithmetic.

Any module goes through that PyTorch can export. Operators are named after their module
(``layer1.0.conv2``), after their weight where one module has several (``encoder.self_attn.in_proj_weight``),
or after what they do where a function was called (``relu``, ``block.add``); a repeated name gets a number
(``relu_1``). A parameter keeps its name and the result of operator ``conv1`` is ``conv1.output``.

*Kinds.* Convolutions are ``conv1d`` to ``conv3d`` and ``conv_transpose1d`` to ``conv_transpose3d``. A
product with a trained parameter is ``linear``, its parameter operand W whatever the order; one of two
activations, or with a constant, is ``matmul``, of which `count` is the samples and heads. Recurrent layers
are ``lstm_input`` and ``lstm_recurrent`` (``gru_``, ``rnn_``), see ``_torch_recurrent``. Scaled dot-product
attention is ``matmul``, ``softmax``, ``matmul``: a causal mask changes neither product, whose masked half is
computed as well, and heads that share a key and a value are rows of one product. Anything else has the name
of its ATen operator without underscores (`_KINDS` of ``_torch_operators`` lists the exceptions), and its
arithmetic is that of ``_vector_ops``: one operation per output element for a kind that is not listed there.

*Views.* A reshape, transpose, permutation, expansion, slice, split, selection or cast to the same type, and
a dropout in evaluation mode, is another name of the same tensor: no operator, no bytes. A reader of a slice
names the whole tensor, its product or vector operations count what it reads. Where the layout forces a
copy (a reshape of a transposed tensor) there is an operator ``copy``; joining tensors is ``cat``. Writing in
place makes a new result, of the whole tensor even where a part of it is written.

*Fused.* A ReLU that alone reads the result of a product becomes part of it (``conv2d+relu``). So does a
batch normalisation in evaluation mode that alone reads a convolution: its scale is multiplied into the
weights beforehand, and its shift is the bias of the convolution (``bn1.bias`` where that had none), so of
its four parameters and statistics per channel at most one is read.

*Constants.* What depends neither on an input nor on a parameter is computed beforehand: where an operator
reads it, it is a graph input of role CONSTANT, as are buffers. A single number, or a tensor filled with
one, is no tensor. A parameter that is not floating point is a constant too. What depends on parameters and
no input is computed beforehand as well, unless the graph is one to train: its result is a parameter, see
``accel.folding``.

*Formats.* Of the elements' type; whole numbers of 32 and 64 bits are int32, a truth value is one bit, a
complex number is two along a last axis.
"""

from __future__ import annotations

from accel.accumulations import NetworkError
from accel.fusion import Fuse, check_fuse, fuse_elementwise
from accel.importers._torch_graph import TorchGraph
from accel.importers._torch_operators import READERS, read_other
from accel.importers._torch_trace import Module, TorchTensor, exported, functional, without_data
from accel.workload import Workload

__all__ = ["Module", "TorchTensor", "from_torch"]


def from_torch(
    module: Module,
    *inputs: TorchTensor,
    name: str | None = None,
    fold_batch_norm: bool = True,
    fold_parameters: bool = True,
    fuse: Fuse = "compiler",
) -> Workload:
    """Graph of one inference pass of `module`, in evaluation mode.

    Parameters
    ----------
    module
        Not changed; a copy without data is exported.
    inputs
        Example inputs; only shapes and types count, so they may be on the meta device. The first
        axis of the first one is the batch.
    name
        Of the workload; the module's class by default.
    fold_batch_norm
        Whether a batch normalisation becomes part of the convolution before it, as for inference. It
        counts where `fuse` is ``"compiler"``.
    fold_parameters
        Whether operators that read parameters alone are done beforehand, as for inference. Without it the
        graph is the one to train: they run at every step, and what they read gets the gradient. It counts
        where `fuse` is not ``"none"``.
    fuse
        What is joined: ``"compiler"`` as above; ``"none"``, one operator per function that is called, with
        all of its parameters and buffers; or ``"elementwise"``, which is ``"none"`` with every element-wise
        operator joined to the producer of its operand, see ``accel.fusion``.

    Raises
    ------
    TypeError
        `module` is no module, or an input no tensor.
    NetworkError
        A ``ValueError``: the module cannot be exported, the shape of a result depends on the data, an
        operator hides products that cannot be told from its arguments, or elements are of a type that
        has no format.
    ValueError
        `fuse` is none of the three.
    """
    check_fuse(fuse)
    if not isinstance(module, Module):
        raise TypeError(f"module must be a torch.nn.Module, got {module!r}")
    name = name or type(module).__name__
    if not inputs:
        raise NetworkError(f"{name} needs at least one example input")
    for place, tensor in enumerate(inputs):
        if not isinstance(tensor, TorchTensor):
            raise TypeError(
                f"input {place} of {name} must be a tensor such as torch.empty(2, 3), got {tensor!r}"
            )
        if 0 in tensor.shape:
            raise NetworkError(f"input {place} of {name} must not be empty, got shape {tuple(tensor.shape)}")
    twin = without_data(name, module).eval()
    program = exported(name, twin, [tensor.detach().to("meta") for tensor in inputs])
    graph = TorchGraph(
        functional(name, program),
        READERS,
        read_other,
        fold_batch_norm=fold_batch_norm and fuse == "compiler",
        join_relu=fuse == "compiler",
    )
    found = Workload(
        name=name,
        operators=tuple(graph.operators),
        tensors=graph.tensors,
        inputs=graph.inputs,
        outputs=tuple(dict.fromkeys(graph.outputs)),
        batch=inputs[0].shape[0] if inputs[0].ndim else 1,
    )
    if fold_parameters and fuse != "none":
        found = found.folded()
    return fuse_elementwise(found) if fuse == "elementwise" else found
