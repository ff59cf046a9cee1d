"""What the motifs' compiled loops compute, as short as its formulas, with dictionaries and no bound."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MOST_RUN, MOST_COUNT, DENSE_LIMIT, RATE_LIMIT = 16, 60, 4096, 1000
TOTALS = ((1, 1), (2, 2), (3, 3), (4, 4), (8, 6), (16, 12), (64, 30), (1 << 40, 100))
LIKELIHOODS = (0.005, 0.02, 0.07, 0.2, 0.4, 0.6, 0.8, 0.92, 0.97, 0.99, 0.997)
SPAN, BINS = 9.21034, 33


class _Slot:
    """Next symbols of one context, by falling count, and of equal counts the latest first."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.pairs: list[tuple[int, int]] = []

    def add(self, symbol: int) -> None:
        at = next((i for i, (known, _) in enumerate(self.pairs) if known == symbol), len(self.pairs))
        count = self.pairs.pop(at)[1] if at < len(self.pairs) else 0
        if len(self.pairs) == self.width:
            self.pairs.pop()
            at -= 1
        self.pairs.insert(at, (symbol, count + 1))
        if count + 1 > MOST_COUNT:
            self.pairs = [(known, n - n // 2) for known, n in self.pairs]
        pair = self.pairs.pop(at)
        while at > 0 and pair[1] >= self.pairs[at - 1][1]:
            at -= 1
        self.pairs.insert(at, pair)

    @property
    def total(self) -> int:
        return sum(n for _, n in self.pairs)


class ReferenceMotifs:
    """Reads and writes one stream, symbol by symbol, without bounds.

    Each context that is known blends what followed it into what shorter ones expect,
    p <- (1 - trust) p + trust * counts / total. Trust is learned by bucket as the running mean of how
    responsible the context was for what came, trust * own / blended: one step of expectation maximisation.
    The likeliest symbol's probability is moved half way to how often such a one came; the others share what
    that leaves by a second blend, from which the likeliest is left out, with trust that is learned where it
    did not come. A symbol is counted after the contexts that had it, from the longest of these on: what
    shorter ones are asked for is what longer ones do not know (update exclusion, Moffat 1990).

    Args:
        orders: Lengths of contexts, rising, from 1.
        vocab_size: Symbols.
        min_count: How often a context must have come to be a motif.

    Attributes:
        motif: The longest motif at the last reading.
    """

    def __init__(self, orders: tuple[int, ...], *, vocab_size: int = 256, min_count: int = 2) -> None:
        self.orders, self.vocab_size, self.min_count = orders[1:], vocab_size, min_count
        self.slots: dict[tuple[int, ...], _Slot] = {}
        self.again: set[tuple[int, ...]] = set()
        self.zero: Counter[int] = Counter()
        self.first: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self.trust: dict[tuple[Any, ...], float] = {}
        self.refined: dict[tuple[Any, ...], float] = {}
        self.taught: Counter[tuple[Any, ...]] = Counter()
        self.past: list[int] = []
        self.run, self.known, self.best = 0, 0, -1
        self.motif: tuple[int, ...] = ()
        self.lessons: list[tuple[tuple[Any, ...], list[float]]] = []
        self.bins: list[tuple[Any, float]] = []

    def read(self) -> list[float]:
        """Return the distribution of the next symbol."""
        self.lessons, self.best, self.known, self.motif = [], -1, 0, ()
        p = [1 / self.vocab_size] * self.vocab_size
        p = self._blended(p, self.zero, ("zero", self.zero.total().bit_length()), 0.9)
        if self.past:
            after = self.first[self.past[-1]]
            p = self._blended(p, after, ("first", after.total().bit_length()), 0.9)
        base = p
        for k, context in enumerate(self._contexts()):
            if context in self.slots:
                self.known = k + 1
                p = self._with_slot(p, context)
        if self.best < 0:
            return p
        certain, others = self._refined(p[self.best]), self._others(base)
        return [certain if v == self.best else (1 - certain) * q for v, q in enumerate(others)]

    def write(self, symbol: int) -> None:
        """Learn from the last reading, and remember what came."""
        for bucket, responsible in self.lessons:
            if bucket[0] == "others" and symbol == self.best:
                continue
            self.taught[bucket] = min(self.taught[bucket] + 1, RATE_LIMIT)
            trust = self.trust[bucket]
            trust += (responsible[symbol] - trust) / (self.taught[bucket] + 1.5)
            self.trust[bucket] = min(max(trust, 1e-4), 0.9998)
        if self.best >= 0:
            for key, share in self.bins:
                self.refined[key] += ((symbol == self.best) - self.refined[key]) * share * 0.02
        self.run = min(self.run + 1, MOST_RUN) if symbol == self.best else 0
        self._count(symbol)
        self.past.append(symbol)

    def bits(self, symbols: Iterable[int]) -> list[float]:
        """Return the bits of each symbol, read and then written one by one."""
        told = []
        for symbol in symbols:
            told.append(-math.log2(self.read()[symbol]))
            self.write(symbol)
        return told

    def _contexts(self) -> list[tuple[int, ...]]:
        return [tuple(self.past[-order:]) for order in self.orders if len(self.past) >= order]

    def _with_slot(self, p: list[float], context: tuple[int, ...]) -> list[float]:
        slot = self.slots[context]
        if max(slot.total, 2 if context in self.again else 1) >= self.min_count:
            self.motif = context
        top, distinct = slot.pairs[0][0], min(len(slot.pairs), 4)
        level, typical = next((i, n) for i, (most, n) in enumerate(TOTALS) if slot.total <= most)
        likelihood = sum(p[top] > bound for bound in LIKELIHOODS)
        bucket = (len(context), level, distinct, likelihood, self._run_level())
        p = self._blended(p, dict(slot.pairs), bucket, typical / (typical + distinct))
        if self.best < 0 or p[top] > p[self.best]:
            self.best = top
        return p

    def _blended(
        self, p: list[float], counts: Mapping[int, int], bucket: tuple[Any, ...], first_trust: float
    ) -> list[float]:
        total = sum(counts.values())
        if not total:
            return p
        trust = self.trust.setdefault(bucket, first_trust)
        own = [counts.get(v, 0) / total for v in range(self.vocab_size)]
        blended = [(1 - trust) * a + trust * b for a, b in zip(p, own, strict=True)]
        self.lessons.append(
            (bucket, [trust * a / b if a else 0.0 for a, b in zip(own, blended, strict=True)])
        )
        return blended

    def _others(self, base: list[float]) -> list[float]:
        """Return the distribution of the next symbol, given that it is not the likeliest."""
        p = [q / (1 - base[self.best]) if v != self.best else 0 for v, q in enumerate(base)]
        for context in self._contexts():
            pairs = dict(self.slots[context].pairs) if context in self.slots else {}
            has = pairs.pop(self.best, 0) > 0
            if pairs:
                likelihood = sum(p[next(iter(pairs))] > bound for bound in LIKELIHOODS)
                total = sum(pairs.values())
                level = next(i for i, (most, _) in enumerate(TOTALS) if total <= most)
                p = self._blended(
                    p, pairs, ("others", len(context), level, min(len(pairs), 4), likelihood, has), 0.5
                )
        return p

    def _refined(self, p: float) -> float:
        p = min(max(p, 1e-4), 1 - 1e-4)
        where = (math.log(p / (1 - p)) / SPAN + 1) * (BINS - 1) / 2
        first = min(int(where), BINS - 2)
        parts = ((first, 1 - (where - first)), (first + 1, where - first))
        self.bins = [((self.known, self._run_level(), number), share) for number, share in parts]
        learned = sum(share * self.refined.setdefault(key, _even(key[2])) for key, share in self.bins)
        return (p + learned) / 2

    def _run_level(self) -> int:
        return 0 if self.run < 1 else 1 if self.run < 4 else 2 if self.run < MOST_RUN else 3

    def _count(self, symbol: int) -> None:
        contexts = self._contexts()
        self.again.update(context for context in contexts if context in self.slots)
        having = [
            k for k, c in enumerate(contexts) if c in self.slots and symbol in dict(self.slots[c].pairs)
        ]
        deepest = max(having, default=0)
        if deepest == 0:
            self._count_dense(symbol)
        for context in contexts[deepest:]:
            width = next(w for most, w in ((2, 20), (4, 9), (8, 4), (1 << 40, 1)) if len(context) <= most)
            self.slots.setdefault(context, _Slot(width)).add(symbol)

    def _count_dense(self, symbol: int) -> None:
        self.zero[symbol] += 1
        if self.past:
            after = self.first[self.past[-1]]
            after[symbol] += 1
            if after.total() >= DENSE_LIMIT:
                self.first[self.past[-1]] = Counter({v: n - n // 2 for v, n in after.items()})


def _even(number: int) -> float:
    return 1 / (1 + math.exp(-SPAN * (2 * number / (BINS - 1) - 1)))
