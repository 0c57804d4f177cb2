"""The commands that a page shows."""

import re
import shlex
from pathlib import Path

BLOCK = re.compile(r"^```(?:bash|sh)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(page: Path, below: str = "") -> list[list[str]]:
    """The Python commands in a page's code blocks, split into words, without comments.

    Args:
        page: a Markdown file.
        below: the heading whose section alone is read, without `#`; empty for the whole page.
    """
    text = page.read_text(encoding="utf-8")
    if below:
        text = text.partition(f"\n## {below}\n")[2].partition("\n## ")[0]
    lines = "".join(BLOCK.findall(text)).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("python ")]
