"""Runs the tutorial anew and keeps its outputs, small enough for the repository: make notebook."""

import re
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

PAGE = Path(__file__).parent / 'tutorial.ipynb'
TEMPORARY = re.escape(tempfile.gettempdir()) + r'/tmp\w+'


def run(notebook: nbformat.NotebookNode) -> None:
    """Execute in the folder of the page; keep outputs, but not when or by whom they were made."""
    NotebookClient(
        notebook, timeout=600, record_timing=False, resources=dict(metadata=dict(path=PAGE.parent))
    ).execute()
    notebook.metadata = dict(kernelspec=notebook.metadata['kernelspec'])


if __name__ == '__main__':
    tutorial = nbformat.read(PAGE, as_version=4)
    run(tutorial)
    # the temporary folder has another name in each run
    PAGE.write_text(re.sub(TEMPORARY, '...', nbformat.writes(tutorial)))
