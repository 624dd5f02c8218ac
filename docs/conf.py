"""How the documentation is built: ``make docs``."""

import re
import shutil
import sys
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

import mfef_mmrazor  # noqa: E402

project = 'mfef_mmrazor'
release = mfef_mmrazor.__version__
extensions = [
    'myst_nb',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx-mathjax-offline',  # formulas without a network
]
exclude_patterns = ['_build', 'jupyter_execute']
html_theme = 'furo'
html_title = 'mfef_mmrazor'
html_show_copyright = False
myst_enable_extensions = ['dollarmath', 'colon_fence']
myst_heading_anchors = 4
nb_execution_mode = 'off'  # the notebook is kept with its pictures; tests/test_docs.py runs it
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'
autodoc_default_options = {'members': True}
napoleon_use_rtype = False

# Pages of the repository that are pages of the documentation as well
GENERATED = DOCS / 'generated'
PAGES = {
    path: GENERATED / path.relative_to(ROOT).with_suffix('.md')
    for pattern in ('configs/**/README.md', 'results/**/README.md', 'CHANGELOG.md')
    for path in sorted(ROOT.glob(pattern))
}
LINK = re.compile(r'(!?)\[([^]]*)\]\(([^):\s]+)\)')  # of the repository: no colon, so no https:


def led(page: str, source: Path, target: Path) -> str:
    """The text of a page of the repository, its links led to where they lead in the documentation.

    A link to another such page or to a picture is kept; a link to any other file becomes its text.

    Args:
        page: The text, Markdown.
        source: Where the page is in the repository.
        target: Where it is in the documentation.
    """

    def lead(match: re.Match) -> str:
        mark, text, link = match.groups()
        path, sharp, anchor = link.partition('#')
        found = (source.parent / path).resolve() if path else source
        found = found / 'README.md' if found.is_dir() else found
        if found.suffix in ('.md', '.ipynb') and found.parent == DOCS:
            return f'[{text}](/{found.name}{sharp}{anchor})'
        if found in PAGES:
            up = Path(*['..'] * len(target.parent.relative_to(DOCS).parts))
            there = up / PAGES[found].relative_to(DOCS)
            return f'[{text}]({there.as_posix()}{sharp}{anchor})'
        if mark and found.is_file():
            shutil.copy(found, target.parent / found.name)
            return f'![{text}]({found.name})'
        return text

    return LINK.sub(lead, page)


# Toctrees are added here, since GitHub would show them as code. What is below a page:
BELOW = {
    'methods': ['configs/README', 'configs/*/README', 'configs/_base_/*/README'],
    'results': ['results/README', 'results/*/README'],
}


def toctree(entries: list[str], option: str) -> str:
    """A toctree for the side bar alone, Markdown."""
    return '\n'.join(['', '```{toctree}', ':hidden:', option, '', *entries, '```', ''])


def contents(index: str) -> str:
    """The toctrees of the first page: for each heading, the pages that are linked below it."""
    found = ''
    for section in index.split('\n## ')[1:]:
        pages = re.findall(r'\(/?([\w/]+)\.(?:md|ipynb)\)', section)
        found += toctree(pages, f':caption: {section.splitlines()[0]}')
    return found


def lead_links(app, name: str, content: list[str]) -> None:
    """On the documentation's own pages, whose links are those that GitHub shows."""
    page = DOCS / f'{name}.md'
    if page.is_file() and GENERATED not in page.parents:
        content[0] = led(content[0], page, page)
        if name == 'index':
            content[0] += contents(content[0])
        if name in BELOW:
            content[0] += toctree([f'generated/{pages}' for pages in BELOW[name]], ':glob:')


def setup(app) -> None:
    """What Sphinx calls."""
    app.connect('source-read', lead_links)


shutil.rmtree(GENERATED, ignore_errors=True)
for source, target in PAGES.items():
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(led(source.read_text(), source, target))

# API: every registered distiller
distillers = '\n'.join(
    f'.. autoclass:: mfef_mmrazor.models.{name}'
    for name in sorted(mfef_mmrazor.models.__all__)
    if name.endswith('Distiller') and name != 'OnlineDistiller'
)
(GENERATED / 'distillers.md').write_text(f'```{{eval-rst}}\n{distillers}\n```\n')
exclude_patterns.append('generated/distillers.md')
