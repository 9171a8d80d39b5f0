"""MkDocs hooks: pages made from the files of the root, and links that work in both places."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "LEADERBOARD.md": "leaderboard.md",
    "LOG.md": "log.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
"""Files of the repository's root that are pages of the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from the root; their links to ``docs/`` become links beside them."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        text = re.sub(r"\]\((?!https?:|#|docs/)", "](../", text).replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links out of ``docs/`` into links to pages, or into plain text where there is none."""

    def replace(match: re.Match[str]) -> str:
        text, target, anchor = match.groups(default="")
        return f"[{text}]({PAGES[target]}{anchor})" if target in PAGES else text

    return re.sub(r"(?<!!)\[([^\]]+)\]\(\.\./([^)#]*)(#[^)]*)?\)", replace, markdown)
