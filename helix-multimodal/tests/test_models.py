"""Models of several kinds of data: what they learn, what they refuse, and what comes back."""

import pytest
import torch
from torch.nn import functional as F

from helix_kernel import default_kernel
from helix_kernel.errors import ArgumentError, ConfigError
from helix_multimodal.inputs import Padded, Tokens, pad
from helix_multimodal.models.captioner import Captioner
from helix_multimodal.models.parts import hide_some
from helix_multimodal.models.reconstructor import _means

TEXT = {"use": "byte-embedding"}
PICTURE = {"use": "image-patches", "patch": 8}


def build(table, seed=0):
    torch.manual_seed(seed)
    return default_kernel().build("layer", table)


def texts(*words):
    return pad([torch.tensor(list(word), dtype=torch.uint8) if word else None for word in words])


def pictures(*values):
    return pad([None if v is None else torch.full((3, 8, 8), v, dtype=torch.uint8) for v in values])


def learn(model, inputs, loss, steps=60, lr=1e-2):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(model(inputs))
        value.backward()
        optimizer.step()
    return value.item()


INPUTS = {"picture": pictures(0, 80, 160, 255), "text": texts(b"black", b"dark", b"light", b"white")}


@pytest.mark.parametrize(
    "options",
    [
        {"fusion": {"use": "gated"}},
        {"alignment": {"use": "soft-dtw"}},
        {"alignment": {"use": "sinkhorn"}},
        {"alignment": {"use": "ctc", "upsample": 12}, "encoders": {"picture": PICTURE}},
    ],
    ids=["info-nce", "soft-dtw", "sinkhorn", "ctc"],
)
def test_a_retriever_learns_partners_by_heart(options):
    table = {
        "use": "retriever",
        "d_model": 16,
        "encoders": {"picture": PICTURE, "text": TEXT},
        "query": ["picture"],
        "target": ["text"],
        **options,
    }
    model = build(table)
    places = torch.arange(4)[:, None].repeat(1, 2)
    learn(model, INPUTS, lambda scores: F.cross_entropy(scores.flatten(0, 1), places.flatten()), steps=120)
    with torch.no_grad():
        found = model.eval().measures([INPUTS])
    assert found["recall_at_1_picture_to_text"] == found["recall_at_1_text_to_picture"] == 1


def test_the_second_row_of_scores_is_that_of_targets():
    model = build(
        {
            "use": "retriever",
            "d_model": 8,
            "encoders": {"picture": PICTURE, "text": TEXT},
            "query": ["picture"],
            "target": ["text"],
            "fusion": {"use": "late-logits"},
        }
    ).eval()
    scores = model(INPUTS)
    assert scores.shape == (4, 2, 4)
    assert scores[:, 0].equal(scores[:, 1].T)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"fusion": None}, "fusion is missing"),
        ({"alignment": {"use": "sinkhorn"}}, "fusion is given, but the alignment Sinkhorn reads tokens"),
        ({"target": ["txt"]}, "the part 'txt'.*'text'"),
        ({"query": ["picture", "text"]}, "on one side only"),
        ({"query": []}, "query is empty"),
    ],
)
def test_a_retriever_whose_parts_do_not_fit_is_refused(changes, match):
    table = {
        "use": "retriever",
        "d_model": 8,
        "encoders": {"picture": PICTURE, "text": TEXT},
        "query": ["picture"],
        "target": ["text"],
        "fusion": {"use": "gated"},
        **changes,
    }
    with pytest.raises((ArgumentError, ConfigError), match=match):
        build({name: value for name, value in table.items() if value is not None})


def test_a_classifier_learns_from_whichever_part_is_there():
    model = build(
        {
            "use": "multimodal-classifier",
            "d_model": 16,
            "encoders": {"picture": PICTURE, "text": TEXT},
            "n_classes": 2,
        }
    )
    inputs = {"picture": pictures(0, None, 255, None), "text": texts(b"black", b"black", None, b"white")}
    classes = torch.tensor([0, 0, 1, 1])
    assert learn(model, inputs, lambda logits: F.cross_entropy(logits, classes)) < 0.1
    assert model.eval()(inputs).argmax(1).equal(classes)


def test_a_captioner_learns_texts_by_heart_and_ends_them():
    model = build(
        {
            "use": "captioner",
            "d_model": 32,
            "encoders": {"picture": PICTURE},
            "target": "text",
            "layers": [{"use": "min-gru"}],
        }
    )
    targets = INPUTS["text"].values.long()
    learn(model, INPUTS, lambda logits: F.cross_entropy(logits.flatten(0, 1), targets.flatten()), steps=150)
    # Texts of five bytes fill their shape and have no end.
    found = model.eval().caption({"picture": INPUTS["picture"]}, n_bytes=5)
    assert found == [b"black", b"dark", b"light", b"white"]


def test_a_caption_sees_no_byte_before_its_time():
    model = build(
        {"use": "captioner", "d_model": 8, "encoders": {"picture": PICTURE}, "target": "text"}
    ).eval()
    changed = {**INPUTS, "text": texts(b"black", b"dark", b"light", b"whine")}
    first, second = model(INPUTS), model(changed)
    # The fourth byte is other in the last row: its own logits are not, those after it are.
    assert first[3, :4].equal(second[3, :4])
    assert not first[3, 4:].equal(second[3, 4:])


def test_what_a_caption_is_not_shown_does_not_matter():
    model = build(
        {
            "use": "captioner",
            "d_model": 8,
            "encoders": {"picture": PICTURE, "note": TEXT},
            "target": "text",
        }
    ).eval()
    note = texts(None, b"ab", None, None)
    longer = Padded(F.pad(note.values, (0, 5), value=7), note.sizes)
    torch.testing.assert_close(model({**INPUTS, "note": note}), model({**INPUTS, "note": longer}))


def test_a_captioner_needs_causal_layers():
    with pytest.raises(ArgumentError, match="looks ahead"):
        build(
            {
                "use": "captioner",
                "d_model": 8,
                "encoders": {"picture": PICTURE},
                "target": "text",
                "layers": [{"use": "attention", "causal": False}],
            }
        )
    with pytest.raises(ArgumentError, match="it is the target, which would be read"):
        Captioner(8, encoders={"text": lambda d_model: None}, target="text", layers=[])


def test_a_reconstructor_gives_back_what_it_learned():
    model = build(
        {
            "use": "reconstructor",
            "d_model": 32,
            "part": "picture",
            "encoder": PICTURE,
            "decoder": {"use": "pixels", "patch": 8},
        }
    )
    assert learn(model, INPUTS, torch.Tensor.mean, steps=200) < 1e-3
    back = model.eval().reconstruct(INPUTS)
    assert back.sizes.equal(INPUTS["picture"].sizes)
    assert (back.values.int() - INPUTS["picture"].values.int()).abs().max() < 16


def test_stretches_of_a_code_are_means_of_visible_tokens():
    values = torch.arange(6.0).view(1, 6, 1)
    mask = torch.tensor([[True, False, True, True, False, True]])
    found = _means(Tokens(values, mask), 2)
    assert found.values.flatten().tolist() == [1.0, 4.0]
    few = _means(Tokens(values, torch.tensor([[False, True, False, False, False, False]])), 3)
    assert few.mask.tolist() == [[True, False, False]]


def test_training_hides_parts_but_never_all():
    torch.manual_seed(0)
    mask = torch.ones(500, 2, dtype=torch.bool)
    parts = {
        "a": Tokens(torch.zeros(500, 2, 1), mask),
        "b": Tokens(torch.zeros(500, 2, 1), mask & (torch.arange(500) % 2 == 0)[:, None]),
    }
    found = hide_some(parts, 0.5)
    shown = torch.stack([found[name].present for name in "ab"], 1)
    assert shown.any(1).all()
    assert shown[1::2, 0].all()  # alone, so that it stays
    assert 0.3 < (~shown[::2, 0]).float().mean() < 0.45  # drawn below a half, and below the other: 3 of 8
    assert hide_some(parts, 0.0)["a"] is parts["a"]


def test_data_that_lack_a_part_are_refused():
    model = build(
        {
            "use": "multimodal-classifier",
            "d_model": 8,
            "encoders": {"picture": PICTURE, "text": TEXT},
            "n_classes": 2,
        }
    )
    with pytest.raises(ArgumentError, match=r"encoders.text: the data have no part 'text'.*'texts'"):
        model({"picture": INPUTS["picture"], "texts": INPUTS["text"]})
