"""The processes that train one model together: what each does alone, and what they agree on."""

from helix_train.ranks.base import Ranks, Standing
from helix_train.ranks.join import join

__all__ = ["Ranks", "Standing", "join"]
