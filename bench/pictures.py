#!/usr/bin/env python3
"""Takes a picture out of a page that `shardloom bench … --html` has written, as a file that needs nothing else.

    bench/pictures.py PAGE.html TITLE FILE.svg     the first picture whose title or label begins so
"""

import re
import sys
from pathlib import Path


def main():
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    page, title, out = sys.argv[1:]
    text = Path(page).read_text()
    style = re.search(r"<style>(.*?)</style>", text, re.S).group(1)
    for picture in re.findall(r"<svg .*?</svg>", text, re.S):
        if re.search(rf'aria-label="{re.escape(title)}', picture):
            style += "\nsvg{background:var(--paper);font-family:system-ui,sans-serif}"
            head = f'<svg xmlns="http://www.w3.org/2000/svg" {picture[5:]}'
            whole = head.replace(">", f"><style>{style}</style>", 1)
            Path(out).write_text(whole + "\n")
            return
    raise SystemExit(f"{page} has no picture that begins with {title}")


if __name__ == "__main__":
    main()
