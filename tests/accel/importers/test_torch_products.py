"""PyTorch modules: products by hand, their names, what is not trained, and every bad input."""

import sys
import textwrap

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name PyTorch users know
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from accel.accumulations import NetworkError
from accel.importers.torch_products import load_module, read_torch


class Call(nn.Module):
    """A module that is one function of its inputs and its own parameters."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def lengths(row):
    return row.forward, row.backward, row.gradient


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, dtype=dtype, device="meta")


def read(function, *inputs, batch=256, **parts):
    return read_torch(Call(function, **parts), *inputs, batch=batch)


def rows(*args, **kwargs):
    return {row.layer: row for row in read(*args, **kwargs).products}


# ------------------------------------------------------------------------------- products


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 5, stride=2)
        self.bn1 = nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(nn.Conv2d(8, 16, 3, groups=4, padding="same"), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 6, 4, stride=2, groups=2)
        self.fc = nn.Linear(6, 10)

    def forward(self, x):
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return self.fc(self.up(x).mean((2, 3)))


def test_a_network_by_hand():
    network = read_torch(Net(), torch.zeros(2, 3, 15, 15))
    assert [(row.layer, row.operator, lengths(row)) for row in network.products] == [
        ("conv1", "conv", (75, None, 36 * 256)),
        ("blocks.0", "grouped conv", (9 * 2, 9 * 4, 36 * 256)),
        ("up", "transposed conv", (4 * 8, 16 * 3, 36 * 256)),
        ("fc", "linear", (6, 10, 256)),
    ]
    assert (network.name, network.batch, network.notes) == ("Net", 256, ())


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_multiply_accumulates_are_those_pytorch_counts(batch):
    with FlopCounterMode(display=False) as counter:
        Net()(torch.zeros(batch, 3, 15, 15))
    assert 2 * read_torch(Net(), torch.zeros(2, 3, 15, 15), batch=batch).macs == counter.get_total_flops()


def test_convolutions_over_one_and_three_axes():
    found = rows(
        lambda m, x, z: (m.a(x), m.b(z), m.c(x), m.d(z)),
        meta(2, 4, 20),
        meta(2, 2, 6, 6, 6),
        a=nn.Conv1d(4, 8, 5),
        b=nn.Conv3d(2, 3, 2),
        c=nn.ConvTranspose1d(4, 5, 6, stride=3),
        d=nn.ConvTranspose3d(2, 3, 2),
    )
    assert {name: lengths(row) for name, row in found.items()} == {
        "a": (20, None, 256 * 16),
        "b": (16, None, 256 * 125),
        "c": (2 * 4, None, 256 * 20),
        "d": (8 * 2, None, 256 * 216),
    }


@pytest.mark.parametrize(
    ("function", "kind", "expected"),
    [
        (lambda m, x: torch.matmul(x, m.w), "linear", (8, 6, 7 * 256)),
        (lambda m, x: F.linear(x, m.w.t()), "linear", (8, 6, 7 * 256)),
        (lambda m, x: torch.einsum("bsd,de->bse", x, m.w), "einsum", (8, 6, 7 * 256)),
        (lambda m, x: torch.mm(x[:, 0], m.w), "linear", (8, 6, 256)),
        (lambda m, x: torch.addmm(m.w[0], x[:, 0], m.w), "linear", (8, 6, 256)),
        (lambda m, x: m.w.mT @ x.mT, "linear", (8, 6, 7 * 256)),  # the weight stands first
        (lambda m, x: x @ m.w[:, 0], "linear", (8, 1, 7 * 256)),
    ],
)
def test_products_with_a_weight(function, kind, expected):
    def scaled(m, x):
        return function(m, x * m.scale)

    (found,) = read(
        scaled, meta(2, 7, 8), w=nn.Parameter(torch.zeros(8, 6)), scale=nn.Parameter(torch.ones(8))
    ).products
    assert (found.operator, lengths(found)) == (kind, expected)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x, y: x @ y,
        lambda m, x, y: torch.bmm(x, y),
        lambda m, x, y: torch.linalg.matmul(x, y),
        lambda m, x, y: torch.baddbmm(meta(1, 1, 1), x, y),
        lambda m, x, y: torch.einsum("bij,bjk->bik", x, y),
    ],
)
def test_products_of_two_activations(function):
    def trained(m, x, y):
        return function(m, x * m.scale, y * m.scale)

    (found,) = read(trained, meta(2, 7, 8), meta(2, 8, 5), scale=nn.Parameter(torch.ones(()))).products
    assert (lengths(found), found.count, found.operator in ("matmul", "einsum")) == ((8, 5, 7), 256, True)


def test_only_the_operand_that_is_trained_has_a_gradient():
    x, y = meta(2, 7, 8), meta(2, 8, 5)
    scale = nn.Parameter(torch.ones(()))
    (first,) = read(lambda m, x, y: (x * m.scale) @ y, x, y, scale=scale).products
    assert lengths(first) == (8, 5, None)
    (second,) = read(lambda m, x, y: x @ (y * m.scale), x, y, scale=scale).products
    assert lengths(second) == (8, None, 7)


def test_a_product_of_a_tensor_with_itself():
    (found,) = read(lambda m, x: F.scaled_dot_product_attention(x, x, x)[0], meta(2, 3, 7, 8)).products[:1]
    assert (found.layer, lengths(found), found.count) == ("attention QK^T", (8, None, None), 768)
    (gram,) = read(lambda m, x: torch.einsum("bij,bkj->bik", x, x), meta(2, 7, 8)).products
    assert (gram.m, gram.n, gram.k) == (7, 7, 8)


@pytest.mark.parametrize("need_weights", [False, True])
def test_multi_head_attention(need_weights):
    network = read(
        lambda m, x: m.attn(x, x, x, need_weights=need_weights)[0],
        meta(2, 5, 16),
        attn=nn.MultiheadAttention(16, 4, batch_first=True),
    )
    assert [lengths(row) for row in network.products] == [
        (16, None, 5 * 256),
        (4, 5, 5),
        (5, 4, 5),
        (16, 16, 5 * 256),
    ]
    names = [row.layer for row in network.products]
    assert (names[0], names[3]) == ("attn.in_proj_weight", "attn.out_proj")
    middle = ["attn.bmm", "attn.bmm_1"] if need_weights else ["attn QK^T", "attn PV"]
    assert names[1:3] == middle


def test_cross_attention_projects_with_slices_of_its_weight():
    found = rows(
        lambda m, x, y: m.attn(x, y, y, need_weights=False)[0],
        meta(2, 5, 16),
        meta(2, 9, 16),
        attn=nn.MultiheadAttention(16, 4, batch_first=True),
    )
    assert lengths(found["attn.in_proj_weight"]) == (16, None, 5 * 256)
    assert lengths(found["attn.in_proj_weight_1"]) == (16, None, 9 * 256)
    assert lengths(found["attn PV"]) == (9, 4, 5)
    assert not any(row.notes for row in found.values())


def test_a_transformer_layer_avoids_its_fused_path_and_leaves_the_switch_alone():
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    before = torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad():  # the fused path needs no gradients
        network = read_torch(layer, meta(2, 5, 16))
    assert torch.backends.mha.get_fastpath_enabled() is before
    assert layer.training
    assert network.notes == ()
    assert [(row.layer, lengths(row)) for row in network.products] == [
        ("self_attn.in_proj_weight", (16, None, 1280)),
        ("self_attn QK^T", (4, 5, 5)),
        ("self_attn PV", (5, 4, 5)),
        ("self_attn.out_proj", (16, 16, 1280)),
        ("linear1", (16, 32, 1280)),
        ("linear2", (32, 16, 1280)),
    ]


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers(kind, gates):
    found = rows(
        lambda m, x: m.net(x)[0],
        meta(2, 4, 5),
        net=kind(5, 6, num_layers=2, bidirectional=True, batch_first=True),
    )
    assert len(found) == 8
    for end in ("", "_reverse"):
        assert lengths(found[f"net.weight_ih_l0{end}"]) == (5, None, 4 * 256)
        assert lengths(found[f"net.weight_hh_l0{end}"]) == (6, gates * 6, 4 * 256)
        assert lengths(found[f"net.weight_ih_l1{end}"]) == (12, gates * 6, 4 * 256)
    assert {row.operator for row in found.values()} == {kind.__name__.lower()}


def test_a_projected_lstm():
    found = rows(
        lambda m, x: m.net(x)[0], meta(2, 4, 5), net=nn.LSTM(5, 6, proj_size=3, batch_first=True, bias=False)
    )
    assert {name: lengths(row) for name, row in found.items()} == {
        "net.weight_ih_l0": (5, None, 1024),
        "net.weight_hh_l0": (3, 24, 1024),
        "net.weight_hr_l0": (6, 3, 1024),
    }


def unrolled(m, x):
    h = x.new_zeros(x.shape[0], 6)
    for step in x.unbind(1):
        h = m.cell(step, h)
    return h


@pytest.mark.parametrize(("kind", "gates"), [(nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_an_unrolled_cell_shares_its_weights_over_time(kind, gates):
    found = rows(unrolled, meta(2, 5, 4), cell=kind(4, 6))
    assert len(found) == 10
    assert {lengths(row) for row in found.values()} == {(4, None, 1280), (6, gates * 6, 1280)}
    (note,) = found["cell.weight_hh_4"].notes
    assert note.startswith("weight shared with cell.weight_hh, cell.weight_hh_1, cell.weight_hh_2 and 1 more")


# ------------------------------------------------------------------------------- weights


def test_a_module_that_is_called_twice():
    found = rows(lambda m, x: m.fc(F.relu(m.fc(x))), meta(2, 8), fc=nn.Linear(8, 8))
    assert [(name, row.gradient) for name, row in found.items()] == [("fc", 512), ("fc_1", 512)]
    assert found["fc"].notes == ("weight shared with fc_1: its gradient sums over all 2 uses",)


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_weight_that_is_computed_is_a_weight(wrap):
    network = read(lambda m, x: m.fc(F.relu(m.fc(x))), meta(2, 8), fc=wrap(nn.Linear(8, 8)))
    linear = [row for row in network.products if row.operator == "linear" and row.m > 1]
    assert [lengths(row) for row in linear] == [(8, None, 512), (8, 8, 512)]
    assert all("weight shared" in row.notes[0] for row in linear)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(50, 8)
        self.wpe = nn.Embedding(10, 8)
        self.kind = nn.Embedding(2, 8)
        self.head = nn.Linear(8, 50, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens, kinds):
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1])) + self.kind(kinds)
        return self.head(x)


def test_a_tied_embedding_and_positions_made_without_a_device():
    tokens = torch.zeros(2, 10, dtype=torch.long)
    network = read_torch(Tied(), tokens, tokens)
    (head,) = network.products
    assert (head.layer, lengths(head)) == ("head", (8, 50, 2560))
    assert head.notes == (
        "embedding wte reads the same table: 2560 lookups add to its gradient by scatter-add",
    )
    assert network.notes == (
        "embedding kind is no product: a gradient sums over the lookups of its row, of 2560",
    )


def test_the_module_is_left_as_it_was():
    module = Tied()
    module.train()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    read_torch(module, torch.zeros(2, 10, dtype=torch.long), torch.zeros(2, 10, dtype=torch.long))
    assert module.training
    assert module.head.weight is module.wte.weight
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_frozen_weights_have_no_gradient_and_buffers_neither():
    net = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4))
    net[0].requires_grad_(False)
    (first, second) = read_torch(net, meta(2, 8)).products
    assert (lengths(first), first.notes) == ((8, None, None), ("its weight is not trained",))
    assert lengths(second) == (6, None, 256)
    net.requires_grad_(False)
    network = read_torch(net, meta(2, 8))
    assert [lengths(row) for row in network.products] == [(8, None, 256), (6, 4, 256)]
    assert network.notes == ("no parameter requires a gradient: all are taken to be trained",)

    basis = Call(lambda m, x: m.fc(x) @ m.dct, fc=nn.Linear(8, 6))
    basis.register_buffer("dct", torch.zeros(6, 5))
    assert lengths(read_torch(basis, meta(2, 8)).products[1]) == (6, 5, None)


def test_what_runs_without_gradients_is_only_forward():
    def function(m, x):
        with torch.no_grad():
            y = m.a(x)
        return m.b(y)

    network = read(function, meta(2, 8), a=nn.Linear(8, 6), b=nn.Linear(6, 4))
    first, second = network.products
    assert (lengths(first), first.notes) == ((8, None, None), ("it runs without gradients",))
    assert lengths(second) == (6, None, 256)
    found = rows(lambda m, x: m.b(m.a(x).detach()), meta(2, 8), a=nn.Linear(8, 6), b=nn.Linear(6, 4))
    assert found["b"].backward is None


def test_a_tensor_filled_in_place_is_trained():
    def function(m, x):
        y = torch.zeros(x.shape[0], 2, 6)
        y[:, 0] = m.a(x)
        return m.b(F.relu(y, inplace=True))

    found = rows(function, meta(2, 8), a=nn.Linear(8, 6), b=nn.Linear(6, 4))
    assert lengths(found["b"]) == (6, 4, 512)


def test_a_checkpointed_part_is_read():
    found = rows(
        lambda m, x: m.b(checkpoint(lambda y: F.relu(m.a(y)), x, use_reentrant=False)),
        meta(2, 8),
        a=nn.Linear(8, 6),
        b=nn.Linear(6, 4),
    )
    assert {name: lengths(row) for name, row in found.items()} == {"a": (8, None, 256), "b": (6, 4, 256)}


# ------------------------------------------------------------------------------- the batch


def test_a_module_that_fixes_its_batch_is_rescaled():
    def function(m, x):
        y = m.fc(x.view(3, 5, 8))
        return y @ y.transpose(1, 2)

    network = read(function, meta(3, 40), fc=nn.Linear(8, 6))
    fc, scores = network.products
    assert (lengths(fc), fc.m) == ((8, None, 1280), 1280)
    assert (lengths(scores), scores.count) == ((6, 5, 5), 256)
    assert network.notes == ("the module runs for a batch of 3 only: lengths are rescaled to 256",)
    assert read(function, meta(3, 40), batch=3, fc=nn.Linear(8, 6)).notes == ()


def test_a_sum_over_the_batch_holds_the_batch():
    (found,) = read(lambda m, x: x.t() @ x, meta(2, 8)).products
    assert (found.k, found.m, found.n, found.count) == (256, 8, 8, 1)


def test_other_inputs_keep_a_first_axis_that_is_no_batch():
    (found,) = read(lambda m, x, mask: m.fc(x) * mask, meta(2, 7, 8), meta(7, 1), fc=nn.Linear(8, 4)).products
    assert found.m == 7 * 256


# ------------------------------------------------------------------------------- what is left out


def test_what_is_not_covered_is_named():
    def function(m, x):
        y = torch.fft.rfft(x).real
        return m.mix(x, x), torch.cdist(x, x), y, torch.einsum("bi,bj,bk->b", x, x, x)

    network = read(function, meta(2, 8), mix=nn.Bilinear(8, 8, 3))
    assert network.products == ()
    notes = set(network.notes)
    assert "bilinear is not covered: mix.bilinear" in notes
    assert "einsum einsum with equation bi,bj,bk->b is not covered: it has 3 operands" in notes
    assert "fft_rfft is not covered: fft_rfft" in notes
    assert any(note.startswith("cdist is not covered") for note in notes)


def test_branches_of_the_graph_are_named():
    network = read(
        lambda m, x: torch.cond(x.sum() > 0, lambda y: m.a(y), lambda y: m.b(y), (x,)),
        meta(2, 8),
        a=nn.Linear(8, 4),
        b=nn.Linear(8, 4),
    )
    assert network.products == ()
    assert "operator cond is not covered: cond" in network.notes


@torch.library.custom_op("bitfront_tests::magic", mutates_args=())
def magic(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


@magic.register_fake
def _(x):
    return torch.empty_like(x)


def test_operators_of_others_are_named():
    network = read(lambda m, x: m.fc(magic(x)), meta(2, 8), fc=nn.Linear(8, 4))
    assert network.notes == ("operator bitfront_tests.magic is not covered: magic",)
    assert lengths(network.products[0]) == (8, None, 256)


# ------------------------------------------------------------------------------- errors


def test_what_cannot_be_exported_is_told_in_one_line():
    with pytest.raises(NetworkError) as error:
        read_torch(nn.Linear(8, 4), meta(2, 7))
    text = str(error.value)
    assert text.startswith("Linear cannot be exported for inputs (2, 7): RuntimeError: ")
    assert "\n" not in text
    with pytest.raises(NetworkError, match=r"Linear cannot be exported for inputs \(2, 7\)"):
        read_torch(nn.Linear(8, 4), meta(2, 7), batch=2)


def test_a_shape_that_depends_on_the_data_is_refused():
    with pytest.raises(NetworkError, match=r"depends on the data"):
        read(lambda m, x: m.fc(x[x.sum(1) > 0]), meta(2, 8), fc=nn.Linear(8, 4))


def test_a_module_that_cannot_be_copied_is_refused():
    class Locked(nn.Linear):
        def __deepcopy__(self, memo):
            raise RuntimeError("no copies\nof this")

    with pytest.raises(NetworkError, match=r"^Locked cannot be copied: RuntimeError: no copies$"):
        read_torch(Locked(8, 4), meta(2, 8))


def test_inputs_and_batch_are_checked_first():
    with pytest.raises(NetworkError, match="Linear needs at least one example input"):
        read_torch(nn.Linear(8, 4))
    with pytest.raises(NetworkError, match="batch must be at least 1, got 0"):
        read_torch(nn.Linear(8, 4), meta(2, 8), batch=0)


# ------------------------------------------------------------------------------- modules by name


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in the current directory, and the search path as it was."""
    name = f"nets_{tmp_path.name}".replace("-", "_")
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "good.py").write_text(
        textwrap.dedent("""
        from torch import nn

        class Net(nn.Linear):
            def __init__(self):
                super().__init__(3, 4)

        class Family:
            @staticmethod
            def small():
                return nn.Linear(3, 5)

        ready = nn.Linear(3, 6)
        number = 3

        def needs(size):
            return nn.Linear(size, size)

        def fails():
            raise RuntimeError("no weights\\nhere")

        def leaves():
            raise SystemExit(3)

        def text():
            return "net"
        """)
    )
    (folder / "broken.py").write_text("import torch\nx = (\n")
    (folder / "needy.py").write_text("import a_package_nobody_has\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield name
    assert sys.path == before


@pytest.mark.parametrize(("attribute", "outputs"), [("Net", 4), ("Family.small", 5), ("ready", 6)])
def test_a_module_is_found_by_name(package, attribute, outputs):
    assert load_module(f"{package}.good:{attribute}").out_features == outputs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}.good", "a module is named as package.module:callable, got '{}.good'"),
        (":Net", "a module is named as package.module:callable, got ':Net'"),
        ("{}.good:", "a module is named as package.module:callable, got '{}.good:'"),
        ("./{}/good.py:Net", "a module is named with dots and without .py, got './{}/good.py'"),
        ("{}.none:Net", "there is no module {}.none, needed for {}.none"),
        ("no_such_package_at_all.x:Net", "there is no module no_such_package_at_all, needed for"),
        ("{}.needy:Net", "importing {}.needy raised ModuleNotFoundError: No module named 'a_package_nobody"),
        ("{}.broken:Net", "importing {}.broken raised SyntaxError: '(' was never closed"),
        ("{}.good:Nett", "module {}.good has no Nett"),
        ("{}.good:Family.large", "module {}.good has no Family.large"),
        ("{}.good:number", "{}.good:number is not callable, it is a int"),
        ("{}.good:needs", "{}.good:needs called without arguments raised TypeError: needs() missing 1"),
        ("{}.good:fails", "{}.good:fails called without arguments raised RuntimeError: no weights"),
        ("{}.good:leaves", "{}.good:leaves called without arguments raised SystemExit: 3"),
        ("{}.good:text", "{}.good:text must return a torch.nn.Module, got str"),
    ],
)
def test_what_is_wrong_with_a_name_is_told_in_one_line(package, text, message):
    with pytest.raises(NetworkError) as error:
        load_module(text.replace("{}", package))
    assert str(error.value).startswith(message.replace("{}", package))
    assert "\n" not in str(error.value)
