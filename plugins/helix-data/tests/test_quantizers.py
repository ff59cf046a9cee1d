"""The layers `vq`, `rvq` and `fsq`: codes are the nearest, they learn, and are saved with all they need."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import subprocess
import sys

import attrs
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from helix_data import plugin
from helix_data.quantizers.codebook import RVQ, VQ
from helix_data.quantizers.config import FSQConfig, RVQConfig, VQConfig
from helix_data.quantizers.fsq import FSQ
from helix_data.quantizers.use import CodebookUse
from helix_kernel import Kernel
from helix_kernel.errors import ArgumentError, DependencyError, HelixError
from helix_kernel.testing.layers import LayerSuite

STRAIGHT_THROUGH = "a rounding has no gradient but the one that it is given, which no difference quotient has"


class _QuantizerSuite(LayerSuite):
    @pytest.mark.xfail(reason=STRAIGHT_THROUGH, raises=AssertionError)
    def test_gradients_agree_with_finite_differences(self, layer):
        super().test_gradients_agree_with_finite_differences(layer)


class TestVQ(_QuantizerSuite):
    def make_layer(self):
        return VQ(self.d_model, n_codes=32)


class TestRVQ(_QuantizerSuite):
    def make_layer(self):
        return RVQ(self.d_model, n_quantizers=3, n_codes=16, codebook_dim=4)


class TestFSQ(_QuantizerSuite):
    def make_layer(self):
        return FSQ(self.d_model)


MAKERS = {
    "vq": lambda **options: VQ(8, **{"n_codes": 16, **options}),
    "rvq": lambda **options: RVQ(8, **{"n_codes": 16, "n_quantizers": 3, **options}),
    "fsq": lambda **options: FSQ(8, levels=(4, 3, 3), **options),
}
of_each = pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))
of_codebooks = pytest.mark.parametrize("make", [MAKERS["vq"], MAKERS["rvq"]], ids=["vq", "rvq"])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def inputs(batch_size=4, seq_len=20, d_model=8):
    return torch.randn(batch_size, seq_len, d_model)


def learnt(layer, n_steps=3):
    layer.train()
    for _ in range(n_steps):
        layer(inputs())
    return layer


@of_each
def test_forward_is_to_the_bit_what_the_ids_decode_to(make):
    layer = learnt(make())
    x = inputs()
    ids = layer.encode(x)
    assert ids.dtype == torch.int64
    assert ids.shape[:2] == x.shape[:2]
    assert layer.eval()(x).equal(layer.decode(ids))


@of_each
def test_training_gives_what_evaluation_would_have_given_before_it_learnt(make):
    layer = learnt(make())
    x = inputs()
    before = copy.deepcopy(layer).eval()(x)
    assert layer.train()(x).equal(before)


def test_a_codes_vector_is_the_nearest():
    """Against distances in float64 that numpy works out one by one."""
    layer = learnt(VQ(8, codebook_dim=None, n_codes=16))
    x, codes = inputs(), layer._books()[0].embed[0]
    distances = ((x.double().numpy()[..., None, :] - codes.double().numpy()) ** 2).sum(-1)
    assert layer.encode(x).numpy().tolist() == distances.argmin(-1).tolist()
    assert layer.eval()(x).equal(codes[layer.encode(x)])


def test_each_codebook_of_a_residual_quantizer_takes_what_the_one_before_left():
    layer = learnt(RVQ(8, codebook_dim=None, n_codes=16, n_quantizers=3))
    x = inputs()
    left = x.double().numpy()
    for book, ids in zip(layer._books(), layer.encode(x).unbind(-1), strict=True):
        codes = book.embed[0].double().numpy()
        nearest = ((left[..., None, :] - codes) ** 2).sum(-1).argmin(-1)
        assert ids.numpy().tolist() == nearest.tolist()
        left = left - codes[nearest]
    np.testing.assert_allclose(layer.eval()(x).numpy(), x.numpy() - left, atol=1e-6)


def test_the_grid_is_the_papers():
    """Mentzer et al. 2023, section 3.1, in float64: bounded by tanh, rounded, divided by half the width."""
    layer = FSQ(8, levels=(8, 5, 3)).eval()
    x = 3 * inputs()
    levels = np.array(layer.levels)
    half = (levels - 1) * 1.001 / 2
    offset = np.where(levels % 2 == 0, 0.5, 0.0)
    z = layer.in_proj(x).detach().double().numpy()
    rounded = np.round(np.tanh(z + np.arctanh(offset / half)) * half - offset)
    codes = torch.from_numpy(rounded / (levels // 2)).float()
    assert torch.allclose(layer(x), layer.out_proj(codes), atol=1e-6)
    digits = rounded + levels // 2
    assert layer.encode(x).tolist() == (digits * np.array([1, 8, 40])).sum(-1).tolist()


def test_every_point_of_a_grid_has_an_id_of_its_own():
    layer = FSQ(3, levels=(4, 5, 3))
    ids = torch.arange(layer.n_codes).unsqueeze(0)
    codes = layer._look_up(ids)
    assert len(codes[0].unique(dim=0)) == 60
    # Far from the borders of a cell, so that tanh's inverse leads back to the point.
    assert codes.abs().max() <= 1


@pytest.mark.parametrize("n_quantizers", [1, 2, 4])
def test_the_gradient_does_not_grow_with_the_number_of_codebooks(n_quantizers):
    """The library's own would: each codebook passes it on, and they are added up."""
    layer = RVQ(
        8, codebook_dim=None, n_codes=16, n_quantizers=n_quantizers, gradient="straight-through"
    ).train()
    x = inputs().requires_grad_()
    layer(x).sum().backward()
    assert x.grad.equal(torch.ones_like(x))


def test_the_rotation_turns_the_gradient_as_it_turns_the_vector():
    """Fifty et al. 2024, equation 4: q = |q| / |z| R z with the rotation R in the plane of z and q."""
    layer = VQ(8, codebook_dim=None, n_codes=16).eval()
    x = inputs(1, 1).requires_grad_()
    g = torch.randn(1, 1, 8)
    y = layer(x)
    (y * g).sum().backward()
    z, q = (v.detach().double().flatten() for v in (x, y))
    e, r = z / z.norm(), q / q.norm()
    s = (e + r) / (e + r).norm()
    turn = torch.eye(8).double() - 2 * torch.outer(s, s) + 2 * torch.outer(r, e)
    torch.testing.assert_close(q.norm() / z.norm() * turn @ z, q, atol=1e-6, rtol=0)
    expected = q.norm() / z.norm() * turn.T @ g.double().flatten()
    torch.testing.assert_close(x.grad.double().flatten(), expected, atol=1e-5, rtol=0)


@of_codebooks
def test_the_commitment_loss_is_the_weighted_squared_distance(make):
    layer = learnt(make(codebook_dim=None, commitment_weight=0.5))
    before = copy.deepcopy(layer)
    x = inputs().requires_grad_()
    layer(x)
    expected, left = torch.zeros(()), x
    for book, ids in zip(before._books(), before._listed(before.encode(x)).unbind(-1), strict=True):
        codes = book.embed[0][ids]
        expected = expected + 0.5 * F.mse_loss(left, codes)
        left = left - codes
    torch.testing.assert_close(layer.auxiliary_loss(), expected)
    (found,) = torch.autograd.grad(layer.auxiliary_loss(), x)
    torch.testing.assert_close(found, torch.autograd.grad(expected, x)[0])
    assert layer.eval().auxiliary_loss() is None


def test_a_grid_has_no_loss_of_its_own():
    assert learnt(MAKERS["fsq"]()).auxiliary_loss() is None


def test_codes_move_as_running_means():
    """van den Oord et al. 2017, appendix A.1, in float64."""
    layer = VQ(4, codebook_dim=None, n_codes=4, kmeans_init=False, decay=0.9, replace_after=0).train()
    sizes, sums = np.ones(4), layer._books()[0].embed[0].double().numpy().copy()
    for _ in range(5):
        x = inputs(d_model=4)
        ids, flat = layer.encode(x).flatten().numpy(), x.double().flatten(0, 1).numpy()
        layer(x)
        chosen = np.eye(4)[ids]
        sizes = 0.9 * sizes + 0.1 * chosen.sum(0)
        sums = 0.9 * sums + 0.1 * chosen.T @ flat
        smooth = (sizes + 1e-5) / (sizes.sum() + 4e-5) * sizes.sum()
        np.testing.assert_allclose(layer._books()[0].embed[0].numpy(), sums / smooth[:, None], rtol=1e-4)


def test_the_first_training_batch_gives_the_first_codes_and_evaluation_gives_none():
    layer = VQ(8, codebook_dim=None, n_codes=4, decay=0.99)
    centres = 10 * torch.eye(8)[:4]
    x = (centres.repeat(20, 1) + 0.01 * torch.randn(80, 8)).unsqueeze(0)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.eval()(x)
    layer.train().encode(x)
    assert all(value.equal(before[name]) for name, value in layer.state_dict().items())
    assert before["_library.layers.0._codebook.embed"].any()
    layer(x)
    assert not layer.state_dict()["_library.layers.0._codebook.embed"].equal(
        before["_library.layers.0._codebook.embed"]
    )
    assert F.mse_loss(layer.eval()(x), x) < F.mse_loss(torch.zeros_like(x), x) / 2


def test_a_code_without_use_moves_to_a_vector_of_the_batch():
    layer = VQ(8, codebook_dim=None, n_codes=4, kmeans_init=False, decay=0.5, replace_after=3).train()
    book = layer._books()[0]
    book.embed[0, 3] = 1000.0
    book.embed_avg[0, 3] = 1000.0
    moved_at = None
    for step in range(1, 10):
        x = inputs()
        layer(x)
        if moved_at is None and book.embed[0, 3].max() < 100:
            moved_at = step
            assert (x == book.embed[0, 3]).all(-1).any()
    assert moved_at == 4


def test_a_moved_code_has_as_many_batches_again():
    layer = VQ(8, codebook_dim=None, n_codes=4, kmeans_init=False, decay=0.5, replace_after=3).train()
    book = layer._books()[0]
    book.embed[0, 3], book.cluster_size[0, 3] = 1000.0, 0.0
    layer(inputs())
    assert book.cluster_size[0, 3] == 1.0
    book.embed[0, 3] = book.embed_avg[0, 3] = 1000.0
    for _ in range(3):
        layer(inputs())
        assert book.embed[0, 3].min() > 900
    layer(inputs())
    assert book.embed[0, 3].max() < 100


def test_random_numbers_come_from_torchs_global_generator():
    def run(seed):
        layer = VQ(8, n_codes=16, kmeans_init=True, decay=0.5, replace_after=2)
        layer.load_state_dict(start)
        torch.manual_seed(seed)
        for x in batches:
            layer.train()(x)
        return layer.state_dict()["_library.layers.0._codebook.embed"]

    start, batches = VQ(8, n_codes=16).state_dict(), [inputs() for _ in range(4)]
    assert run(1).equal(run(1))
    assert not run(1).equal(run(2))


@of_each
def test_saved_and_loaded_it_goes_on_to_the_bit(make):
    layer = learnt(make())
    twin = make()
    twin.load_state_dict(copy.deepcopy(layer.state_dict()))
    rng = torch.get_rng_state()
    first = learnt(layer).state_dict()
    torch.set_rng_state(rng)
    second = learnt(twin).state_dict()
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.equal(second[name]), name
    assert layer.measurements() == twin.measurements()


@of_each
def test_a_copy_and_a_pickle_work_after_a_forward_in_training(make):
    layer = learnt(make())
    x = inputs()
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin.eval()(x).equal(layer.eval()(x))
        assert twin.train().auxiliary_loss() is None


@of_each
def test_autocast_changes_no_code(make):
    """The library's own choice would be made in bfloat16 on a CPU."""
    layer = learnt(make()).eval()
    layer.in_proj = torch.nn.Identity()
    z = inputs(40, 100, layer.codebook_dim)
    layer.d_model = layer.codebook_dim
    ids = layer.encode(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.encode(z).equal(ids)
        assert layer.train().encode(z).equal(ids)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@of_each
def test_it_trains_under_autocast_and_in_other_dtypes(make, dtype):
    layer = make().train()
    if dtype == torch.float64:
        layer.double()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        y = layer(inputs().to(torch.float32 if dtype == torch.bfloat16 else dtype))
    assert y.dtype == dtype
    assert y.isfinite().all()
    y.float().sum().backward()


@of_codebooks
def test_an_empty_batch_teaches_nothing(make):
    layer = learnt(make())
    before = copy.deepcopy(layer.state_dict())
    assert layer(inputs(2, 0)).shape == (2, 0, 8)
    assert all(value.equal(before[name]) for name, value in layer.state_dict().items())


def test_recomputation_in_the_backward_pass_is_refused():
    layer, x = learnt(MAKERS["vq"]()), inputs().requires_grad_()
    y = checkpoint(layer, x, use_reentrant=False)
    with pytest.raises(HelixError, match=r"vq: its forward is run again in the backward pass"):
        y.sum().backward()


def test_too_few_vectors_for_k_means_are_said():
    layer = VQ(8, n_codes=100).train()
    with pytest.raises(ArgumentError, match=r"has 80 vectors, allowed with kmeans_init is >= n_codes=100"):
        layer(inputs())
    VQ(8, n_codes=100, kmeans_init=False).train()(inputs())


@of_each
def test_the_use_of_codes_is_measured(make):
    layer = make(use_batches=4)
    assert layer.measurements() == {}
    learnt(layer, 5)
    recent = []
    for _ in range(4):
        x = inputs(2, 10)
        ids = layer._listed(layer.encode(x)).flatten(0, 1)
        layer(x)
        recent.append(ids)
    found = layer.measurements()
    for book, ids in enumerate(torch.cat(recent).unbind(-1)):
        prefix = f"{book}." if layer.n_codebooks else ""
        n_used = len(ids.unique())
        assert found[f"{prefix}codes_used"] == pytest.approx(n_used / layer.n_codes)
        assert found[f"{prefix}dead_codes"] == layer.n_codes - n_used
        assert 1 <= found[f"{prefix}perplexity"] <= layer.n_codes
    assert len(found) == 3 * (layer.n_codebooks or 1)


def test_frequencies_are_running_means():
    use = CodebookUse(3, n_batches=2)
    for chosen in ([0, 0, 1, 1], [2, 2, 2, 2]):
        use.count(torch.tensor(chosen).unsqueeze(-1))
    # Half of each batch's shares is taken in, and half of that is left of the first after the second.
    weights = np.array([0.5 * 0.5 * 0.5, 0.5 * 0.5 * 0.5, 0.5])
    p = weights / weights.sum()
    assert use.measured()["perplexity"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-6)


def test_perplexity_is_the_number_of_codes_that_are_used_evenly():
    layer = FSQ(1, levels=(5,), use_batches=10).train()
    layer.in_proj = torch.nn.Identity()
    for _ in range(3):
        layer(torch.tensor([-3.0, 0.0, 3.0, 0.0, -3.0, 3.0]).view(1, 6, 1))
    found = layer.measurements()
    assert found["perplexity"] == pytest.approx(3, rel=1e-6)
    assert (found["codes_used"], found["dead_codes"]) == (3 / 5, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VQ(0), "vq: d_model is 0, allowed is >= 1"),
        (lambda: VQ(8, n_codes=1), "vq: n_codes is 1, allowed is >= 2"),
        (lambda: VQ(8, codebook_dim=0), "vq: codebook_dim is 0, allowed is >= 1"),
        (lambda: VQ(8, decay=1.0), "vq: decay is 1.0, allowed is > 0 and < 1"),
        (lambda: VQ(8, commitment_weight=-1), "commitment_weight is -1, allowed is >= 0"),
        (lambda: VQ(8, gradient="rotate"), "Did you mean 'rotation'"),
        (lambda: RVQ(8, n_quantizers=0), "rvq: n_quantizers is 0, allowed is >= 1"),
        (lambda: FSQ(8, levels=()), "levels is empty"),
        (lambda: FSQ(8, levels=(8, 2)), "levels holds 2, allowed is >= 3 and <= 256"),
        (lambda: FSQ(8, levels=(200, 200, 200)), "8,000,000 codes, allowed is <= 1,048,576"),
        (lambda: VQ(8)(torch.zeros(2, 3, 4)), r"vq: x has shape \(2, 3, 4\)"),
        (lambda: VQ(8).decode(torch.zeros(2, 3)), r"vq: ids have shape \(2, 3\) and dtype torch.float32"),
        (lambda: RVQ(8).decode(torch.zeros(2, 3, 2).long()), r"allowed is int64 \(B, L, 4\)"),
        (lambda: FSQ(8, levels=(3, 3)).decode(torch.tensor([[0, 9]])), "ids hold 9, allowed is 0 to 8"),
        (lambda: VQ(8).decode(torch.tensor([[-1]])), "ids hold -1, allowed is 0 to 511"),
    ],
)
def test_wrong_arguments_are_said(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_the_kernel_builds_them_by_name():
    kernel = Kernel(plugins=["helix-data"])
    for name, kind in {"vq": VQ, "rvq": RVQ, "fsq": FSQ}.items():
        assert isinstance(kernel.build("layer", name, d_model=8), kind)


@pytest.mark.parametrize("name", ["vq", "rvq", "fsq", "quantised-autoencoder"])
def test_without_the_library_the_extra_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    for module in ("autoencoder", "codebook", "fsq"):
        monkeypatch.delitem(sys.modules, f"helix_data.quantizers.{module}", raising=False)
    with pytest.raises(DependencyError, match=r"requires helix-data\[quantizers\]"):
        Kernel(plugins=["helix-data"]).build("layer", name, d_model=8)


@pytest.mark.parametrize("component", plugin.helix_layers(), ids=lambda component: component.name)
def test_config_and_layer_take_the_same_options(component):
    config, target = (load(getattr(component, of)) for of in ("config", "target"))
    fields = {field.name: field.default for field in attrs.fields(config)}
    signature = {name: p.default for name, p in inspect.signature(target).parameters.items()}
    assert fields.pop("d_model") is attrs.NOTHING
    assert signature.pop("d_model") is inspect.Parameter.empty
    if component.name == "quantised-autoencoder":
        assert (fields.pop("quantizer"), signature.pop("quantizer")) == ({"use": "vq"}, VQ)
    assert fields == signature


def test_config_classes_import_no_torch():
    code = (
        "import sys, helix_data.plugin, helix_data.quantizers.config; "
        "print([m for m in ('torch', 'numpy', 'vector_quantize_pytorch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (VQConfig, {"n_codes": 1}),
        (VQConfig, {"decay": 0.0}),
        (RVQConfig, {"n_quantizers": 0}),
        (FSQConfig, {"levels": (300,)}),
        (FSQConfig, {"levels": (200, 200, 200)}),
    ],
    ids=["n_codes", "decay", "n_quantizers", "level", "levels"],
)
def test_the_config_refuses_what_the_layer_would_refuse(config, options):
    with pytest.raises(ArgumentError, match="allowed is"):
        config(d_model=8, **options)


def load(path):
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
