"""Turns every formula into MathML while the site is built: reading it needs no script.

`pymdownx.arithmatex` finds the formulas, in pages and in docstrings; `latex2mathml` converts
them. It is lenient where a typo should be an error, and writes some things in ways that browsers
have dropped from MathML; both are mended here.
"""

import html as html_entities
import re
from xml.etree import ElementTree

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
_NAMESPACE = "http://www.w3.org/1998/Math/MathML"


def on_page_content(html: str, *, page, **_) -> str:
    """Replaces the formulas of one page."""

    def replace(match: re.Match[str]) -> str:
        tex = html_entities.unescape(match["tex"]).strip()
        try:
            return mathml(tex, is_block=match["tag"] == "div")
        except Exception as error:
            raise PluginError(f"{page.file.src_uri}: formula {tex!r}: {error}") from error

    return _FORMULA.sub(replace, html)


def mathml(tex: str, *, is_block: bool) -> str:
    """The formula as a `math` element.

    **Raises:** `ValueError` for what cannot be converted, or would be shown as something else.
    """
    bare = tex.replace(r"\{", "").replace(r"\}", "")
    if bare.count("{") != bare.count("}"):
        raise ValueError("the braces don't match")
    # An alphabet is understood only with braces around its letter.
    braced = re.sub(r"\\(math[a-z]+) (\w)", r"\\\1{\2}", tex)
    root = ElementTree.fromstring(convert(braced, display="block" if is_block else "inline"))
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_NAMESPACE}}}")
        _mend(element)
    for element in root.iter():
        _space(element)
    root.set("alttext", tex)
    text = ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)
    # Without a wrapper of its own a wide formula would widen the page of a narrow screen.
    return f'<div class="formula">{text}</div>' if is_block else text


def _mend(element: ElementTree.Element) -> None:
    text = element.text or ""
    if "\\" in text:
        raise ValueError(f"unknown command {text}")
    if element.get("linebreak"):
        raise ValueError("a line break outside of an environment")
    if text == "~":
        element.tag, element.text = "mo", "∼"
    if element.tag == "mover" and element[1].text == "―":
        # Few fonts have a bar that grows: the style sheet draws it.
        element.tag = "mrow"
        element.set("class", "overline")
        element.remove(element[1])
    if text in ("|", ".", ",", "/"):
        element.tag = "mo"
        element.set("lspace", "0")
        element.set("rspace", "0.167em" if text == "," else "0")
    if element.tag == "mo" and len(text) > 1 and text.isalpha():
        element.tag = "mi"
    # Browsers know no other variant: the letter itself has to be the right one.
    if element.get("mathvariant", "normal") != "normal":
        raise ValueError(f"the letter {text} in {element.get('mathvariant')} is not supported")


def _space(row: ElementTree.Element) -> None:
    """Sets apart the names of functions, and keeps a sign with its number."""
    if row.tag != "mrow" and row.tag != "math":
        return
    children = list(row)
    for child, before, after in zip(
        children, [None, *children], [*children[1:], None], strict=False
    ):
        if child.text == "−" and before is not None and before.text in ("=", "(", ",", "→"):
            child.set("form", "prefix")
        if not _is_function(child):
            continue
        if after is not None and after.tag != "mo":
            row.insert(list(row).index(after), _thin_space())
        if before is not None and before.tag not in ("mo", "mspace"):
            row.insert(list(row).index(child), _thin_space())


def _is_function(element: ElementTree.Element) -> bool:
    base = element[0] if element.tag in ("msub", "msup", "msubsup") else element
    return base.tag == "mi" and len(base.text or "") > 1


def _thin_space() -> ElementTree.Element:
    return ElementTree.Element("mspace", {"width": "0.167em"})
