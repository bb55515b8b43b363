"""Formulas of plain text, as systems' files have them, set as MathML that browsers draw alone.

What is written `x_i += v_i dt` in a docstring reads well in a terminal; a page shows it as a
formula. Words around it stay words.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "eta": "η", "kappa": "κ",
    "eps": "ε", "epsilon": "ε", "lambda": "λ", "mu": "μ", "nu": "ν", "chi": "χ", "omega": "ω",
    "zeta": "ζ",
    "phi": "φ", "pi": "π", "psi": "ψ", "rho": "ρ", "sigma": "σ", "tau": "τ", "theta": "θ",
    "xi": "ξ", "perp": "⊥",
}  # fmt: skip
LARGE = {"sum": "∑", "prod": "∏"}
NABLA = {"grad": "∇", "lap": "∇²"}
FUNCTIONS = frozenset(
    ("cos", "sin", "tan", "cosh", "tanh", "atan", "asinh", "exp", "log", "log10", "max", "min")
) | {"Cov", "Tr", "det", "diag", "short", "sign", "sqrt", "window"}
UPRIGHT = ("lr",)  # symbols of more than one letter
VARIABLES = ("gain", "margin", "relaxation", "speed")  # that are words elsewhere
DIFFERENTIALS = ("dA", "db", "dF", "dh", "dH", "dL", "dm", "dp", "dq", "dt", "dV", "dw", "dx")
_SYMBOLS = (*GREEK, *LARGE, *NABLA, *DIFFERENTIALS)
SIGNS = {
    "+=": "+=", "-=": "−=", "<=": "≤", ">=": "≥", "->": "→", "+-": "±", "..": "…", "<-": "←",
    "-": "−", "*": "·", "=": "=", "+": "+", "/": "/", "−": "−", "·": "·", "≤": "≤", "≥": "≥",
    "→": "→",
}  # fmt: skip
_PLAIN = {  # what is read as something else
    "\\<=": "<=", "\\|": "|", "\\<": "<", "\\*": "*", "²": "2", "³": "3", "⁴": "4", "⟨": "<",
    "⟩": ">",
}  # fmt: skip
_RELATIONS = ("=", "+=", "-=", "<=", ">=", "->", "<-", "+-", "+", "/")
_CERTAIN = ("^", "=", "<=", ">=", "+=", "-=", "+-", "<-", "≤", "≥", "in")  # no prose has these
_KEPT = r"""(?P<kept>^\s*(?:[-*+]|\d+\.)\s|^>|!?\[[^\]]*\]\([^)]*\)|https?://\S+
    |</?[a-z]+(?:\s[^<>]*)?>|<!--.*?-->|(?<!\w)[A-Z]-[A-Z]{2,}
    |\*\*|(?<![\w*)\]])\*[^\s*][^*]*\*(?!\w)|\\[^|<*])|"""  # of Markdown
_TEXT = r"""(?P<code>`[^`]*`)|(?P<text>"[^"]*")
    |(?P<word>[A-Za-z]{2,}(?:(?:-[A-Za-z]+)+(?![\w'])|'s(?!\w))|[A-Za-z]'s(?!\w))
    |(?P<name>(?:[A-Za-z]+|[Α-Ωα-ω])\d*(?:_(?:\{[^}]*\}|[A-Za-z0-9]+(?:,[A-Za-z0-9]+(?![\w]))*))*'*)
    |(?P<number>(?:\d[\d,]*\.?\d+|\.?\d+)(?:e[-+]?\d+(?!\w))?)
    |(?P<sign>\\<=|\\[|<*]|\+=|-=|<=|>=|->|<-|\+-|\.\.|[-=+*/^|()\[\]{}<>,;:.'−·≤≥→⟨⟩])
    |(?P<space>\s+)|(?P<raised>[²³⁴])|(?P<other>.)"""
_TOKEN = re.compile(_TEXT, re.VERBOSE)
_MARKDOWN = re.compile(_KEPT + _TEXT, re.VERBOSE | re.MULTILINE)
_INDEXED = re.compile(rf"(?:[A-Za-zα-ω]|{'|'.join(GREEK)})\d")
_LONG, _SHORT = 4, 3  # tokens before and after a break
_OPEN, _CLOSE = "([{", ")]}"


@dataclass
class Token:
    """A piece of text: its kind, and whether white space stands before and after it."""

    kind: str
    text: str
    before: bool
    after: bool
    math: bool = False
    start: int = 0
    end: int = 0


def system_table(block: str) -> str:
    """A block of rows "Label   text" as a table in HTML, its formulas set."""
    rows: list[tuple[str, list[str]]] = []
    for line in block.strip("\n").splitlines():
        if line.startswith(" ") and rows:
            rows[-1][1].append(line.strip())
        else:
            label, text = _label(line)
            rows.append((label, [text]))
    cells = [
        f"<tr><th scope='row'>{html.escape(label)}</th><td>{typeset(' '.join(lines))}</td></tr>"
        for label, lines in rows
    ]
    return "<table class='system'><tbody>\n" + "\n".join(cells) + "\n</tbody></table>"


def _label(line: str) -> tuple[str, str]:
    """The label of a row and its text: the label ends at column 11, or at a colon."""
    if len(line) > 11 and line[10] == " ":
        return line[:11].strip(), line[11:].strip()
    label, _, text = line.partition(":")
    return label, text.strip()


def paragraph(text: str) -> str:
    """A paragraph in Markdown with its formulas set; as it is if it has none, or is none."""
    if not text or re.search(r"^(?:[-#|><!]|\d+\.)|\]\(|\*\*|```", text, re.MULTILINE):
        return text
    made = typeset(" ".join(re.sub(r"\\([*|<])", r"\1", text).split()))
    return f"<p>{made}</p>" if "<math>" in made else text


def typeset(text: str) -> str:
    """A line of words and formulas as HTML."""
    tokens = _tokens(text)
    _mark(tokens)
    out: list[str] = []
    k = 0
    while k < len(tokens):
        end = _run(tokens, k)
        token = tokens[k]
        if out and token.before:
            out.append(" ")
        if end > k:
            out.append(_formula(tokens[k:end]))
            k = end
            continue
        if token.text == "^" and k + 1 < len(tokens) and tokens[k + 1].kind == "number":
            out.append(f"<sup>{tokens[k + 1].text}</sup>")
            k += 2
            continue
        out.append(_word(token))
        k += 1
    return "".join(out)


def markdown(text: str) -> str:
    """A page in Markdown with the formulas of its paragraphs, lists and tables set.

    Code, links, headings and HTML stay as they are. A lone letter is set where the page has it
    in a formula too; elsewhere it may be a unit, a name or an element.
    """
    pieces = list(_pieces(text))
    symbols = {
        token.text
        for kind, piece in pieces
        if kind != "other"
        for tokens in _runs(piece)
        if _is_certain(tokens)
        for token in tokens
        if token.kind == "name" and token.math and len(token.text) == 1
    }
    return "".join(
        piece if kind == "other" else _with_formulas(piece, symbols, kind) for kind, piece in pieces
    )


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """What a page consists of, in order: (kind, piece); kinds: prose, cell, display, other."""
    fence, before = "", ""
    gathered: list[str] = []
    for line in [*text.splitlines(keepends=True), ""]:
        bare = line.strip()
        kind = "prose"
        if fence or bare.startswith("```"):
            kind, fence = "other", "" if fence and bare == fence else fence or "```"
        elif not bare or bare.startswith(("#", "<!--", "<")) or line.startswith("Made by"):
            kind = "other"
        elif line.startswith("|"):
            kind = "cell"
        elif line.startswith("    ") and before != "prose":
            kind = "display"
        if gathered and (kind != before or not line):
            yield before, "".join(gathered)
            gathered = []
        if kind == "cell":
            for cell in re.split(r"((?<!\\)\|)", line):
                yield ("other" if cell == "|" else "cell"), cell
        elif kind == "display":
            yield kind, line
        else:
            gathered.append(line)
        before = kind


def _with_formulas(text: str, symbols: Set[str], kind: str) -> str:
    """A piece of Markdown with its formulas set; symbols: letters that may stand alone."""
    out, done = [], 0
    for tokens in _runs(text):
        start, end = tokens[0].start, tokens[-1].end
        before = text[:start]
        if not (_is_certain(tokens) or _is_known(tokens, symbols, before)):
            continue
        made = _formula(tokens).replace("|", "&#124;")
        # Markdown takes a <math> that begins a line for the end of a paragraph
        first = kind != "cell" and not before.rpartition("\n")[2].strip()
        out += [text[done:start], f"<span>{made}</span>" if first else made]
        done = end
    made = "".join([*out, text[done:]])
    if kind == "display" and out:
        return '<p class="display">' + re.sub(" {2,}", " &emsp; ", made.strip()) + "</p>\n"
    return made


def _runs(text: str) -> Iterator[list[Token]]:
    """The formulas of a piece of Markdown, certain or not."""
    tokens = _tokens(text, _MARKDOWN)
    _mark(tokens)
    for token in tokens:
        base = re.split("[_']", token.text, maxsplit=1)[0]
        code = re.match("n_[a-z]{3,}", token.text) or not _is_short(base)
        if token.kind == "name" and base != token.text and code:
            token.math = False  # a name in code, or a genitive
    k = 0
    while k < len(tokens):
        start, end = k, _run(tokens, k)
        while start < end and tokens[start].text in (*_RELATIONS, *"*·)]}^", "in"):
            start += 1
        while end > start and tokens[end - 1].text in (*_RELATIONS, *"-−*·", "in"):
            end -= 1
        bars = [j for j in range(start, end) if tokens[j].text == "|"]
        if len(bars) % 2 and start in bars:
            start += 1
        elif len(bars) % 2 and end - 1 in bars:
            end -= 1
        elif len(bars) % 2:
            end = start
        if end > start:
            yield tokens[start:end]
        k = max(end, k + 1)


def _is_certain(tokens: Sequence[Token]) -> bool:
    """Whether a run can be nothing but a formula."""
    texts = [token.text for token in tokens]
    names = [token.text for token in tokens if token.kind == "name" and token.math]
    if re.fullmatch(r"\d+ x \d+", " ".join(texts)) or "^" in texts:
        return True
    if any(text in _CERTAIN for text in texts) and len(tokens) > 1:
        return bool(names)
    if re.search(r"(?:^| )\| \w \|", " ".join(texts)):
        return True
    for token, after in itertools.pairwise([*tokens, tokens[-1]]):
        letter = token.kind == "name" and (len(token.text) == 1 or token.text in FUNCTIONS)
        if letter and after.text == "(" and not after.before:
            return True
    return any(
        "_" in name or "'" in name or re.match(r"I\d$|[Α-Ωα-ω]", name) or base in _SYMBOLS
        for name in names
        for base in [name.rstrip("0123456789")]
    )


def _is_known(tokens: Sequence[Token], symbols: Set[str], before: str) -> bool:
    """Whether a run has no letters but symbols of its page, and no unit."""
    names = [token.text for token in tokens if token.kind == "name"]
    units = any(
        first.kind == "number" and second.kind == "name"
        for first, second in itertools.pairwise(tokens)
    )
    alone = not re.search(r"(?:\d|CPU|\^|²|³)\s*$", before)
    return bool(names) and set(names) <= symbols and alone and not units


def _formula(tokens: Sequence[Token]) -> str:
    """A formula; a line may break before the signs of a long one, as browsers break no <math>."""
    starts, depth, bars = [0], 0, 0
    for k, token in enumerate(tokens):
        depth += (token.text in _OPEN) - (token.text in _CLOSE)
        bars += token.text == "|"
        sign = token.kind == "sign" and token.text in ("=", "+", "-", "+=", "<=") and token.after
        large = token.kind == "name" and token.text.partition("_")[0] in LARGE
        inside = depth or bars % 2 or k + _SHORT > len(tokens)
        if (large and k - starts[-1] > 2) or (sign and k - starts[-1] >= _LONG):
            starts += [k] if token.before and not inside else []
    pieces = [tokens[a:b] for a, b in zip(starts, [*starts[1:], len(tokens)], strict=True)]
    rows = [_row(piece) for piece in pieces]
    rows = [
        rows[0],
        *(re.sub("^<mo(?: form='prefix')?>", "<mo form='infix'>", row) for row in rows[1:]),
    ]
    return " ".join(f"<math>{row}</math>" for row in rows)


def _tokens(text: str, pattern: re.Pattern[str] = _TOKEN) -> list[Token]:
    tokens: list[Token] = []
    space = False
    for match in pattern.finditer(text):
        kind, (start, end) = match.lastgroup or "other", match.span()
        if kind == "space":
            space = True
            if tokens:
                tokens[-1].after = True
            continue
        if kind == "raised":
            tokens.append(Token("sign", "^", space, False, False, start, start))
            kind, space = "number", False
        tokens.append(Token(kind, _PLAIN.get(match[0], match[0]), space, False, False, start, end))
        space = False
    return tokens


def _word(token: Token) -> str:
    if token.kind == "code":
        return f"<code>{html.escape(token.text[1:-1])}</code>"
    return html.escape(token.text, quote=False)


def _mark(tokens: Sequence[Token]) -> None:
    """Say of each token whether it belongs to a formula."""
    for token in tokens:
        token.math = token.kind == "name" and _is_symbol(token.text)
        token.math |= token.kind == "sign" and token.text in _RELATIONS
    none = Token("none", "", True, True)
    padded = [none, none, *tokens, none]
    for k, token in enumerate(tokens):
        earlier, before, after = padded[k], padded[k + 1], padded[k + 3]
        sign = before.text if before.kind == "sign" else ""
        if token.kind != "name":
            continue
        if token.text in ("a", "A", "I"):
            token.math = _near(before, after)
        elif token.text in LARGE:
            token.math = after.math or after.text in ("(", "[") or sign in _RELATIONS
        elif token.text == "in":
            token.math = after.text == "["
        elif token.text in VARIABLES:
            follows = sign in (*_RELATIONS, ")") and bool(sign)
            inner = padded[k + 4] if after.text == "(" and k + 4 < len(padded) else after
            token.math = follows or (inner.kind == "name" and inner.math)
        elif not token.math and sign in ("=", "+", "/", "+=", "-"):
            factor = earlier.math or earlier.kind == "number" or earlier.text in (")", ">", "]")
            token.math = factor and token.before == before.before
        elif sign == "<" and not token.before and after.text == "|":
            token.math = True


def _near(before: Token, after: Token) -> bool:
    """Whether a letter that is also a word stands in a formula."""
    if after.kind == "sign" and after.text in (*_RELATIONS, "..", "^", "-"):
        return True
    if after.text in ("in", ")") or (after.text == "," and before.text == "("):
        return True
    if after.math and before.text in ("(", "[", "+", "="):
        return True
    return before.kind == "sign" and before.text in ("+", "=", "/", "|", "^")


def _is_symbol(text: str) -> bool:
    base = re.split(r"[_']", text, maxsplit=1)[0]
    if "_" in text or "'" in text or len(base) == 1 or base in (*GREEK, *LARGE, *NABLA):
        return True
    if base in FUNCTIONS or _INDEXED.fullmatch(base) or base in (*DIFFERENTIALS, *UPRIGHT):
        return base not in ("max", "min", "sign", "short", "log", "window")
    return base.startswith("d") and base[1:] in GREEK


def _run(tokens: Sequence[Token], start: int) -> int:
    """Where the formula that begins at a token ends; `start` if none begins there."""
    end, depth, last = start, 0, start
    if tokens[start].text == "^":
        return start
    while end < len(tokens):
        token = tokens[end]
        if token.kind in ("code", "text", "word", "other", "kept"):
            break
        if token.kind == "name" and not token.math and not _called(tokens, end):
            break
        if token.kind == "sign":
            if token.text in _OPEN:
                depth += 1
            elif token.text in _CLOSE:
                depth -= 1
                if depth < 0:
                    break
            elif token.text in (";", ":") or (token.text in ",." and token.after and depth == 0):
                break
            elif token.text == "." and end + 1 == len(tokens):
                break
        end += 1
        if depth == 0:
            last = end
    end = last
    while end > start and tokens[end - 1].kind == "sign" and tokens[end - 1].text in (
        *_OPEN, ",", ".", "<", "-", "/",
    ):  # fmt: skip
        end -= 1
    marked = [token for token in tokens[start:end] if token.math]
    names = any(token.kind == "name" for token in marked)
    signs = any(token.text in ("^", "=", "<=", "+-") for token in tokens[start:end])
    numbers = re.fullmatch(r"\d+ x \d+", " ".join(token.text for token in tokens[start:end]))
    return end if names or (signs and end - start > 1) or numbers else start


def _called(tokens: Sequence[Token], k: int) -> bool:
    """Whether a word is a function of what stands in brackets after it, or a factor of it."""
    following = tokens[k + 1] if k + 1 < len(tokens) else None
    return tokens[k].text in FUNCTIONS and following is not None and following.text in "([|"


def _row(tokens: Sequence[Token]) -> str:
    """The inside of <math>."""
    parts: list[str] = []
    k = 0
    while k < len(tokens):
        token = tokens[k]
        following = tokens[k + 1] if k + 1 < len(tokens) else None
        if token.text == "^" and parts and following is not None:
            upper, k = _raised(tokens, k + 1)
            parts.append(_above(parts.pop(), upper))
            continue
        if token.text == "sqrt" and following is not None and following.text == "(":
            close = _closing(tokens, k + 1)
            parts.append(f"<msqrt><mrow>{_row(tokens[k + 2 : close])}</mrow></msqrt>")
            k = close + 1
            continue
        star = token.text == "*" and not token.before and (token.after or following is None)
        if (star or (token.text == "*" and following and following.text in "),")) and parts:
            parts.append(_above(parts.pop(), "<mo>∗</mo>"))
        elif token.text == "x" and _is_product(tokens, k):
            parts.append("<mo>×</mo>")
        elif token.kind == "name":
            if parts and token.before and _is_factor(tokens[k - 1]):
                parts.append("<mspace width='0.17em'/>")
            parts.append(_name(token.text))
        elif token.kind == "number":
            if parts and token.before and _is_factor(tokens[k - 1]):
                parts.append("<mspace width='0.17em'/>")
            parts.append(_number(token.text))
        else:
            if token.text in "([" and token.before and k and _is_factor(tokens[k - 1]):
                parts.append("<mspace width='0.17em'/>")
            parts.append(_sign(tokens, k))
        k += 1
    return "".join(parts)


def _number(text: str) -> str:
    digits, _, power = text.partition("e")
    if not power:
        return f"<mn>{text}</mn>"
    sign = "<mo form='prefix'>−</mo>" if power[0] == "-" else ""
    power = power.lstrip("+-0") or "0"
    ten = f"<msup><mn>10</mn><mrow>{sign}<mn>{power}</mn></mrow></msup>"
    return ten if digits == "1" else f"<mn>{digits}</mn><mo>·</mo>{ten}"


def _is_factor(token: Token) -> bool:
    return token.kind in ("name", "number") or token.text in (")", "]", ">", "|", "'")


def _is_product(tokens: Sequence[Token], k: int) -> bool:
    """Whether an x between two factors is a sign."""
    if not (0 < k < len(tokens) - 1 and tokens[k].before and tokens[k].after):
        return False
    sides = tokens[k - 1], tokens[k + 1]
    if all(side.kind == "number" for side in sides):
        return True
    return all(
        side.kind == "name" and (len(side.text) == 1 or side.text == "grad") for side in sides
    )


def _above(base: str, upper: str) -> str:
    """A superscript; a base that has a subscript keeps it below."""
    if base.startswith("<msub>"):
        return f"<msubsup>{base[6:-7]}{upper}</msubsup>"
    return f"<msup>{base}{upper}</msup>"


def _raised(tokens: Sequence[Token], k: int) -> tuple[str, int]:
    """What stands after ^, and where it ends: a group, or one name or number with its sign."""
    if tokens[k].text in _OPEN:
        close = _closing(tokens, k)
        return f"<mrow>{_row(tokens[k + 1 : close])}</mrow>", close + 1
    end = k + 2 if tokens[k].text in "+-" and k + 1 < len(tokens) else k + 1
    if re.fullmatch(r"1/\d", "".join(token.text for token in tokens[end - 1 : end + 2])):
        half = all(not token.before for token in tokens[end : end + 2])
        end += 2 if half else 0  # ^1/2 as it is spoken
    return f"<mrow>{_row(tokens[k:end])}</mrow>", end


def _closing(tokens: Sequence[Token], k: int) -> int:
    depth = 0
    for j in range(k, len(tokens)):
        depth += (tokens[j].text in _OPEN) - (tokens[j].text in _CLOSE)
        if depth == 0:
            return j
    return len(tokens)


def _sign(tokens: Sequence[Token], k: int) -> str:
    token = tokens[k]
    if token.text == "<" and not token.after:
        return "<mo stretchy='false'>⟨</mo>"
    if token.text == ">" and not token.before:
        return "<mo stretchy='false'>⟩</mo>"
    if token.text == "." and not token.before and not token.after:
        return "<mo>·</mo>"
    if token.text in "()[]{}|":
        return f"<mo stretchy='false' lspace='0' rspace='0'>{token.text}</mo>"
    first = k == 0 or tokens[k - 1].text in ("(", "[", ",", "=", "^", "<", "|")
    form = " form='prefix'" if token.text in ("-", "+-", "+") and first else ""
    return f"<mo{form}>{html.escape(SIGNS.get(token.text, token.text))}</mo>"


def _name(text: str) -> str:
    """A symbol with its index and primes."""
    if text == "in":
        return "<mo>∈</mo>"
    bare = text.rstrip("'")
    primes = len(text) - len(bare)
    base, _, index = bare.partition("_")
    if index and not (_is_short(base) or (base in VARIABLES and len(index) == 1)):
        symbol = f"<mtext>{html.escape(bare)}</mtext>"
    else:
        symbol = _symbol(base)
        if index:
            symbol = f"<msub>{symbol}<mrow>{_index(index)}</mrow></msub>"
    return _above(symbol, f"<mo>{'′' * primes}</mo>") if primes else symbol


def _is_short(base: str) -> bool:
    """Whether a name is a symbol that an index may follow, rather than a word of code."""
    return len(base) == 1 or base in (*_SYMBOLS, "log10") or base[1:] in GREEK


def _index(text: str) -> str:
    if text.startswith("{"):
        tokens = _tokens(text[1:-1])
        return _row(tokens)
    if text in GREEK:
        return f"<mi>{GREEK[text]}</mi>"
    if len(text) > 2 and text.isalpha():
        return f"<mtext>{text}</mtext>"
    return "".join(f"<mn>{c}</mn>" if c.isdigit() else f"<mi>{c}</mi>" for c in text)


def _symbol(base: str) -> str:
    if base in LARGE:
        return f"<mo movablelimits='true'>{LARGE[base]}</mo>"
    if base in NABLA:
        return f"<mo rspace='0'>{NABLA[base]}</mo>"
    if base in GREEK:
        return f"<mi>{GREEK[base]}</mi>"
    if base == "log10":
        return "<msub><mi>log</mi><mn>10</mn></msub>"
    if _INDEXED.fullmatch(base):
        return f"<msub>{_symbol(base.rstrip('0123456789'))}<mn>{base[-1]}</mn></msub>"
    if base in DIFFERENTIALS or (base.startswith("d") and base[1:] in GREEK):
        return f"<mrow><mi mathvariant='normal'>d</mi>{_symbol(base[1:])}</mrow>"
    if len(base) > 1:
        return (
            f"<mi>{base}</mi>"
            if base in (*FUNCTIONS, *UPRIGHT)
            else f"<mtext>{html.escape(base)}</mtext>"
        )
    return f"<mi>{base}</mi>"
