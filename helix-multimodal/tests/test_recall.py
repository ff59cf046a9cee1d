"""How often what belongs together is found."""

import math

import torch

from helix_multimodal.inputs import Tokens
from helix_multimodal.models.recall import Sides, recalls


class ByProduct:
    """Scores are products of vectors, those that are hidden left out."""

    query, target = ("picture", "speech"), ("text",)

    def score(self, sides):
        x = sum(part.values[:, 0] * part.mask for part in sides.query.values())
        return x @ sides.target["text"].values[:, 0].T


def vectors(values, present=None):
    mask = torch.ones(len(values), 1, dtype=torch.bool) if present is None else torch.tensor(present)[:, None]
    return Tokens(torch.as_tensor(values)[:, None], mask)


def test_recall_is_counted_by_hand():
    n = 130  # more than a block
    eye = torch.eye(n)
    wrong = eye.roll(1, 0)  # asked by speech, each finds its neighbour
    sides = Sides({"picture": vectors(eye), "speech": vectors(wrong)}, {"text": vectors(eye)})
    found = recalls(ByProduct(), [sides])
    assert found["recall_at_1_picture_to_text"] == found["recall_at_1_text_to_picture"] == 1
    # The others' scores are all 0, as its own is: that is a miss, not a hit by chance.
    assert found["recall_at_10_speech_to_text"] == 0
    assert found["recall_at_1_picture_and_speech_to_text"] == 0
    assert found["recall_at_10_picture_and_speech_to_text"] == 1
    assert found["chance_at_10_picture"] == 10 / n


def test_what_lacks_a_side_is_neither_asked_nor_found():
    eye = torch.eye(4)
    sides = Sides(
        {"picture": vectors(eye, [True, True, False, True]), "speech": vectors(eye, [False] * 4)},
        {"text": vectors(eye, [True, True, True, False])},
    )
    found = recalls(ByProduct(), [sides])
    assert found["recall_at_1_picture_to_text"] == 1
    assert found["chance_at_1_picture"] == 0.5  # two have both
    assert math.isnan(found["recall_at_1_speech_to_text"])


def test_batches_are_one_gallery():
    eye = torch.eye(6)
    whole = Sides({"picture": vectors(eye), "speech": vectors(eye)}, {"text": vectors(eye.flip(0))})
    halves = [
        Sides(
            {name: Tokens(part.values[rows], part.mask[rows]) for name, part in whole.query.items()},
            {name: Tokens(part.values[rows], part.mask[rows]) for name, part in whole.target.items()},
        )
        for rows in (slice(0, 4), slice(4, 6))
    ]
    assert recalls(ByProduct(), halves) == recalls(ByProduct(), [whole])
    assert recalls(ByProduct(), []) == {}
