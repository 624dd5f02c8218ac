"""Runs the tutorial anew and keeps its outputs, small enough for the repository: make notebook."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

PAGE = Path(__file__).parent / 'tutorial.ipynb'


def run(notebook: nbformat.NotebookNode) -> None:
    """Execute in the folder of the page; keep outputs, but not when or by whom they were made."""
    NotebookClient(
        notebook, timeout=600, record_timing=False, resources=dict(metadata=dict(path=PAGE.parent))
    ).execute()
    notebook.metadata = dict(kernelspec=notebook.metadata['kernelspec'])


if __name__ == '__main__':
    tutorial = nbformat.read(PAGE, as_version=4)
    run(tutorial)
    nbformat.write(tutorial, PAGE)
