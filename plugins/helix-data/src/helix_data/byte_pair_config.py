"""Options of the tokenizer `byte-pair`. Imports no torch and no numpy."""

from __future__ import annotations

import attrs

from helix_kernel import option


@attrs.frozen(kw_only=True)
class BytePairConfig:
    """Byte-pair encoding of any bytes, by a tokenizer.json."""

    path: str = option(help="the file, such as helix tokenizer train writes")
