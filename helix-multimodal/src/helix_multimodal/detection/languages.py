"""Which language a text is written in, by words and signs that others rarely have."""

from __future__ import annotations

import json
import re

EXTENSIONS = {
    extension: name
    for name, extensions in {
        "python": "py pyi pyx",
        "c": "c h",
        "c++": "cpp hpp cc cxx hh hxx",
        "java": "java",
        "javascript": "js mjs cjs",
        "typescript": "ts tsx",
        "rust": "rs",
        "go": "go",
        "shell": "sh bash zsh",
        "perl": "pl pm",
        "ruby": "rb",
        "sql": "sql",
        "css": "css",
        "latex": "tex sty",
        "makefile": "mk",
        "markdown": "md",
        "rst": "rst",
        "html": "html htm",
        "xml": "xml xsd",
        "svg": "svg",
        "yaml": "yaml yml",
        "toml": "toml",
        "ini": "ini cfg",
        "json": "json",
        "json-lines": "jsonl",
        "csv": "csv",
        "tsv": "tsv",
        "plain": "txt",
    }.items()
    for extension in extensions.split()
}
"""Languages by the extensions of their files' names."""

_SHEBANGS = (
    (rb"python|pypy", "python"),
    (rb"node|deno|bun", "javascript"),
    (rb"perl", "perl"),
    (rb"ruby", "ruby"),
    (rb"(ba|da|k|z|c|fi)?sh\b", "shell"),
    (rb"awk", "awk"),
    (rb"make", "makefile"),
)
_OPENINGS = (
    (rb"\s*(?:(?><\?xml.*?\?>|<!--.*?-->)\s*+)*+(<!doctype html|<html[\s>])", "html"),
    (rb"\s*<\?php", "php"),
    (rb"\s*(?><\?xml.*?\?>\s*+)?(?:(?><!--.*?-->)\s*+|(?><!DOCTYPE.*?>)\s*+)*+<svg[\s>]", "svg"),
    (rb"\s*<\?xml\s", "xml"),
    (rb"\s*%!PS", "postscript"),
    (rb"\{\\rtf", "rtf"),
    (rb"\s*\\documentclass|\s*%.*\n\s*\\documentclass", "latex"),
    (rb"From .*\nReceived:|Return-Path:", "mail"),
    (rb"(diff --git|Index: |--- \S+.*\n\+\+\+ )", "diff"),
)
# A mark counts once for each line that it is found in, up to ten, times its weight.
_MARKS: dict[str, tuple[tuple[float, bytes], ...]] = {
    "python": (
        (3, rb"^[ \t]*(async )?def \w+\(.*|^[ \t]*class \w+(\(.*\))?:[ \t]*$"),
        (3, rb"^(from [\w.]+ import |import [\w.]+( as \w+)?[ \t]*$)"),
        (1, rb"^[ \t]*(if|elif|for|while|with|try|except|else)\b.*:[ \t]*$|\bself\.|^[ \t]*\"\"\""),
    ),
    "c": (
        (3, rb"^[ \t]*#[ \t]*(include[ \t]*[<\"]|ifn?def\b|endif\b|define\s)"),
        (
            2,
            rb"^(static |extern |const |unsigned )*(void|int|char|float|size_t|u?int\d+_t)\b[ *]+\w+\s*\(",
        ),
        (1, rb"^typedef |->\w+|\bNULL\b|^[ \t]*struct \w+"),
    ),
    "c++": (
        (
            4,
            rb"^[ \t]*(namespace \w+|template\s*<|using namespace|class \w+[^;]*$)|\bstd::|\bnullptr\b",
        ),
        (2, rb"^[ \t]*(public|private|protected):|\w::\w|\bconstexpr\b"),
        (1, rb"^[ \t]*#[ \t]*(include[ \t]*[<\"]|ifn?def\b|endif\b|define\s)"),
    ),
    "java": (
        (4, rb"^import (static )?(java|org|com)\.[\w.*]+;|^package [\w.]+;"),
        (
            3,
            rb"^[ \t]*(public|private|protected) (static |final )*(class|interface|void|[A-Z]\w*)\b",
        ),
        (1, rb"@Override|System\.out\."),
    ),
    "javascript": (
        (3, rb"^[ \t]*(const|let|var) [\w{\[$].*=|\bfunction\s*\w*\(.*\)\s*\{|=>\s*[{(]|\brequire\(['\"]"),
        (
            3,
            rb"^[ \t]*(export (default|const|function|class)|import .* from ['\"])|\bdocument\.|\bmodule\.ex",
        ),
        (1, rb"===|!==|\bthis\.\w|\bundefined\b"),
    ),
    "typescript": (
        (4, rb"^[ \t]*(export )?(interface|declare|type) \w+|: (string|number|boolean|void|any)\b[;,)\]\[ ]"),
        (1, rb"^[ \t]*(export|import) "),
    ),
    "rust": (
        (
            4,
            rb"^[ \t]*(pub(\(\w+\))? )?(fn |mod |impl\b|trait )|\blet mut\b|^[ \t]*(use [\w:]+::|#!?\[)",
        ),
        (1, rb"\bSome\(|\bOk\(|&mut |&str\b|-> (Self|Result|Option)"),
    ),
    "go": (
        (4, rb"^package \w+[ \t]*$|^func (\(\w+ \*?\w+\) )?\w+\(|^import \([ \t]*$"),
        (2, rb":= |\bif err != nil"),
    ),
    "shell": (
        (3, rb"^[ \t]*(fi|done|esac|then)\b|^[ \t]*if \[\[? |^[ \t]*\w+\(\) *\{|\$\{?\w+\}?\""),
        (1, rb"^[ \t]*(echo|export|set -|local|source|cd|exit) ?"),
    ),
    "perl": (
        (3, rb"^[ \t]*(use strict|use warnings|my [\$@%(]|sub \w+ *\{|package [\w:]+;)"),
        (1, rb"\$\w+->|=~ "),
    ),
    "ruby": (
        (
            3,
            rb"^[ \t]*(require ['\"]|module [A-Z]\w*[ \t]*$|def \w+[?!]?\s*(\(.*\))?[ \t]*$|end$)|\bdo \|",
        ),
    ),
    "sql": ((4, rb"(?i)^[ \t]*(select .* from|create (table|index)|insert into|alter table|drop table)\b"),),
    "css": (
        (3, rb"^[ \t]*[.#@]?[\w-][\w .#:>,*-]*\{[ \t]*$"),
        (3, rb"^[ \t]*(color|margin|padding|display|font|background|border|width|height)[\w-]*\s*:.*;"),
    ),
    "latex": ((3, rb"\\(begin|end|section|subsection|usepackage|newcommand|label|cite)\b"),),
    "makefile": ((3, rb"^\t[@-]?\$\(|^\.PHONY|^[\w./%-]+:[^=\n]*\n\t|^\w+ *[:?]= "),),
    "markdown": (
        (3, rb"(\A|\n\n)#{1,6} \S.*\n\n|^```|^[ \t]*[-*] \[.\] |\]\(https?://|^={4,}[ \t]*$"),
        (1, rb"^[ \t]*[-*] \w|\*\*\w|`[^`]+`|\]\("),
    ),
    "rst": ((4, rb"^\.\. [\w-]+::|^[=~^-]{5,}[ \t]*$|:(ref|class|func|meth|mod):`|``[^`]+``"),),
    "html": ((3, rb"(?i)</?(div|span|p|a|table|body|head|script|ul|li|h\d)\b[^<>]{0,200}>"),),
    "xml": ((2, rb"^[ \t]*</?[\w:-]+( [\w:-]+=\"[^\"<>]*\")*[ \t]*/?>"),),
    "yaml": (
        (3, rb"^[ \t]*- [\w-]+:( |$)|^[\w.-]+:[ \t]*$"),
        (1, rb"^[ \t]*[\w-]+: [^{;]*$"),
        (6, rb"\A---[ \t]*$"),
    ),
    "toml": (
        (3, rb"^\[\[?[\w.\" -]+\]\]?[ \t]*$"),
        (3, rb"^[\w.\"-]+ = (\"|'|\[|\{|true|false|-?\d)"),
    ),
    "ini": (
        (3, rb"^\[[^\]\"]+\][ \t]*$"),
        (1, rb"^[\w.-]+ ?= ?[^\s\"'\[{].*[^;,{\s]$|^; "),
    ),
}
_COMPILED = {
    name: [(weight, re.compile(mark, re.MULTILINE)) for weight, mark in marks]
    for name, marks in _MARKS.items()
}
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")
_MOST = 10
_ENOUGH = 3.0
_HINT = 12


def language(head: bytes, *, complete: bool, name: str | None = None) -> str:
    """Return the name of a language, a kind of data as text such as ``csv``, or ``plain``.

    Args:
        head: The first bytes of a text.
        complete: Whether these are all of it.
        name: The file's name, which counts as much as a few marks do, so that it settles close cases.
    """
    head = head.removeprefix(b"\xef\xbb\xbf")
    if head.startswith(b"#!"):
        line = head.split(b"\n", 1)[0]
        for pattern, found in _SHEBANGS:
            if re.search(pattern, line):
                return found
    for pattern, found in _OPENINGS:
        if re.match(pattern, head, re.IGNORECASE | re.DOTALL):
            return found
    hint = EXTENSIONS.get(name.rpartition(".")[2].lower(), "") if name else ""
    return _data(head, complete=complete, hint=hint) or _by_marks(head, hint) or "plain"


def _data(head: bytes, *, complete: bool, hint: str) -> str:
    if head.lstrip()[:1] in (b"{", b"[") and (found := _json(head, complete=complete)):
        return found
    if hint in _MARKS:
        return ""
    lines = head.decode("utf-8", "replace").splitlines()
    lines = [line for line in (lines if complete else lines[:-1]) if line.strip()][:50]
    if len(lines) < 2:
        return ""
    if all(_is_numbers(line) for line in lines[:20]) and len({len(line.split()) for line in lines[:20]}) == 1:
        return "numbers"
    for separator, name in (("\t", "tsv"), (",", "csv"), (";", "csv")):
        counts = {_without_quoted(line).count(separator) for line in lines}
        if (
            len(counts) == 1
            and counts != {0}
            and not any(line.rstrip().endswith((";", "{")) for line in lines)
        ):
            return name
    return ""


def _json(head: bytes, *, complete: bool) -> str:
    first, _, rest = head.strip().partition(b"\n")
    if _parses(first):
        return "json-lines" if rest else "json"
    if complete:
        return "json" if _parses(head) else ""
    return "json" if re.match(rb"\s*(\{\s*\"[^\"]*\"\s*:|\[\s*([\[{\"]|-?\d))", head) else ""


def _parses(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def _is_numbers(line: str) -> bool:
    words = line.replace(",", " ").replace(";", " ").split()
    return len(words) >= 2 and all(_NUMBER.fullmatch(word) for word in words)


def _without_quoted(line: str) -> str:
    return re.sub(r'"[^"]*"', "", line)


def _by_marks(head: bytes, hint: str) -> str:
    scores = {
        name: sum(weight * min(_MOST, len(mark.findall(head))) for weight, mark in marks)
        for name, marks in _COMPILED.items()
    }
    if hint in scores:
        scores[hint] += _HINT
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] >= (_HINT if hint == "plain" else _ENOUGH) else ""
