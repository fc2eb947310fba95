"""Hooks of mkdocs: pages made of files outside docs/, the links to them, and Sphinx's roles in docstrings.

On a code host links lead to the files themselves, on the site to the pages made of them.
"""

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = Path(__file__).parents[1]
_RESULTS = sorted(_ROOT.glob("benchmarks/results/*.md"))
_TEXTS = ["CONTRIBUTING.md", "CHANGELOG.md", *(f"benchmarks/results/{path.name}" for path in _RESULTS)]
_CODE = {f"examples/{path.name}": path for path in sorted(_ROOT.glob("examples/*.*"))}
_LANGUAGES = {".py": "python", ".sh": "bash"}


def _shown(path: Path) -> str:
    """An example as Markdown: its code, or the cells of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return f"```{_LANGUAGES[path.suffix]}\n{text}```\n"
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n\n".join(f"```python\n{source}\n```" if kind == "code" else source for kind, source in cells)


_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")
_ROLE = re.compile(r":(?:func|class|meth|mod):<code>~?([\w.]+)</code>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/."""
    for name in _TEXTS:
        files.append(File.generated(config, name, content=(_ROOT / name).read_text(encoding="utf-8")))
    for name, path in _CODE.items():
        title = "" if path.suffix == ".ipynb" else f"# {name}\n\n"
        text = f"---\nhide: [toc]\n---\n{title}{_shown(path)}"
        files.append(File.generated(config, _on_site(name), content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages."""
    place = page.file.src_uri
    in_repository = place if page.file.generated_by else f"docs/{place}"

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository), link[1]))
        return f"]({posixpath.relpath(_on_site(target), posixpath.dirname(place) or '.')}{link[2] or ''})"

    return _LINK.sub(moved, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Show the roles of docstrings as plain names."""
    return _ROLE.sub(lambda role: f"<code>{role[1].rpartition('.')[2]}</code>", html)


def _on_site(path: str) -> str:
    """Where a file of the repository is on the site."""
    if path in _CODE:
        return str(Path(path).with_suffix(".md"))
    return path.removeprefix("docs/")
