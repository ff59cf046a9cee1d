"""The fusion `late-logits`: each part answers on its own, and the answers are averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from helix_multimodal.checks import check_at_least
from helix_multimodal.fusion.parts import checked_names, chosen, mean_of_present, mixed, stacked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from helix_multimodal.inputs import Tokens


class LateLogits(nn.Module):
    """y = Σ over the parts that are there of v_p (W_p · mean(x_p)): a product of the parts' likelihoods.

    The mean of logits is the logarithm of a geometric mean of probabilities, but for a constant: Kittler et
    al. 1998, "On combining classifiers", product rule, equation 7, with equal weights v_p. With `weighted`
    they are learned, a softmax over the parts that are there, equal at first: the logarithmic
    opinion pool of Heskes 1998, "Selecting weighting factors in logarithmic opinion pools".

    Args:
        d_model: Width of the tokens.
        d_out: Width of the fused vectors, such as the number of classes.
        parts: Names of what is fused.
        weighted: Whether the parts' weights are learned.

    Raises:
        ArgumentError: A size is below 1, there is no part, or one twice.
    """

    def __init__(self, d_model: int, d_out: int, parts: Sequence[str], *, weighted: bool = False) -> None:
        super().__init__()
        check_at_least("late-logits", d_model=d_model, d_out=d_out)
        self.parts = checked_names("late-logits", parts)
        self.heads = nn.ModuleList(nn.Linear(d_model, d_out) for _ in self.parts)
        # One part alone has the weight 1, whatever is learned.
        self.weights = (
            nn.Parameter(torch.zeros(len(self.parts))) if weighted and len(self.parts) > 1 else None
        )

    def forward(self, parts: Mapping[str, Tokens]) -> Tensor:
        """Return the fused vectors (B, d_out) of tokens (B, N, D) by part.

        Raises:
            ArgumentError: A part is missing from the mapping, or unknown.
        """
        means, present = stacked(chosen("late-logits", parts, self.parts))
        answers = [head(mean) for head, mean in zip(self.heads, means.unbind(1), strict=True)]
        values = torch.stack(answers, 1)
        if self.weights is None:
            return mean_of_present(values, present)
        return mixed(values, self.weights.unsqueeze(-1), present)
