"""Makes the pages of the site in build/pages, which `make docs` turns into HTML: ``python docs/site.py``.

They are docs/*.md and pages made of files outside docs/. On a code host links lead to the files themselves, on the
site to the pages made of them.
"""

import json
import posixpath
import re
import shutil
from pathlib import Path
from typing import Any

from griffe import Extension, Object

_ROOT = Path(__file__).parents[1]
_PAGES = _ROOT / "build/pages"
_TEXTS = ["CONTRIBUTING.md", "CHANGELOG.md"]
_TEXTS += [str(path.relative_to(_ROOT)) for path in sorted(_ROOT.glob("benchmarks/re*/*.md"))]
_CODE = {f"examples/{path.name}": path for path in sorted(_ROOT.glob("examples/*.*"))}
_LANGUAGES = {".py": "python", ".sh": "bash", ".yaml": "yaml"}

_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")
_PICTURE = re.compile(
    r'<picture>\s*<source media="\(prefers-color-scheme: dark\)" srcset="([^"]+)">\s*'
    r'<img alt="([^"]*)" src="([^"]+)">\s*</picture>'
)
_ROLE = re.compile(r":(?:func|class|meth|mod):`~?([\w.]+)`")


def write_pages() -> None:
    """Write all pages anew."""
    shutil.rmtree(_PAGES, ignore_errors=True)
    shutil.copytree(_ROOT / "docs", _PAGES, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    pages = {f"docs/{path.name}": path.read_text(encoding="utf-8") for path in (_ROOT / "docs").glob("*.md")}
    pages |= {name: (_ROOT / name).read_text(encoding="utf-8") for name in _TEXTS}
    for name, path in _CODE.items():
        title = "" if path.suffix == ".ipynb" else f"# {name}\n\n"
        pages[name] = f"---\nhide: [toc]\n---\n{title}{_shown(path)}"
    for name, text in pages.items():
        page = _PAGES / _on_site(name)
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(_moved(text, name), encoding="utf-8")
    for path in _ROOT.glob("benchmarks/re*/*.png"):
        shutil.copy(path, _PAGES / path.relative_to(_ROOT))


def _shown(path: Path) -> str:
    """An example as Markdown: its code, or the cells of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return f"```{_LANGUAGES[path.suffix]}\n{text}```\n"
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n\n".join(f"```python\n{source}\n```" if kind == "code" else source for kind, source in cells)


def _moved(markdown: str, name: str) -> str:
    """The text of the file ``name`` with links between pages, and pictures that follow the switch of the site."""

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), link[1]))
        return f"]({posixpath.relpath(_on_site(target), posixpath.dirname(_on_site(name)) or '.')}{link[2] or ''})"

    markdown = _PICTURE.sub(r"![\2](\3#only-light) ![\2](\1#only-dark)", markdown)
    return _LINK.sub(moved, markdown)


def _on_site(name: str) -> str:
    """Where a file of the repository is on the site."""
    if name in _CODE:
        return str(Path(name).with_suffix(".md"))
    return name.removeprefix("docs/")


class Roles(Extension):
    """Shows the roles of docstrings as plain names."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Replace them in the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(lambda role: f"`{role[1].rpartition('.')[2]}`", obj.docstring.value)


if __name__ == "__main__":
    write_pages()
