"""Makes a site of the Markdown in docs/: pages, a search, and a reference that the program gives.

    launch/site.py --program FILE --output DIR
"""

import argparse
import html
import json
import posixpath
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import markdown

ROOT = Path(__file__).resolve().parent.parent
# Sections of the menu: pages by their path without .md, in order. What isn't listed comes under "More".
MENU = {
    "Start": ["index", "install", "quickstart", "python"],
    "What do you want to do?": [
        "tasks/resume-on-fewer-devices",
        "tasks/deploy-on-two",
        "tasks/which-step-is-whole",
        "tasks/publish-to-hugging-face",
        "tasks/no-shared-disk",
        "tasks/thousands-of-ranks",
        "tasks/lost-strategy",
        "tasks/benchmark-my-cluster",
        "tasks/from-megatron",
    ],
    "Guides": ["training", "cluster", "migrating", "elsewhere", "benchmark"],
    "Reference": ["cli", "formats", "errors", "stable"],
    "Behind it": ["checks", "performance", "wrong-results", "architecture", "design-log", "testing", "promises"],
    "中文": ["zh/quickstart", "zh/migrating"],
}
ROOT_PAGES = {"index": "README.md", "changes": "CHANGELOG.md", "contributing": "CONTRIBUTING.md"}

STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --back: #ffffff; --soft: #f3f4f6; --line: #d0d5dc; --link: #0b57d0; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e7eb; --back: #14171b; --soft: #1f242b; --line: #3a424d; --link: #8ab4f8; }
}
* { box-sizing: border-box; }
body { margin: 0; color: var(--text); background: var(--back); line-height: 1.55;
  font-family: system-ui, "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; }
a { color: var(--link); }
.skip { position: absolute; left: -100rem; }
.skip:focus { left: 1rem; top: 1rem; background: var(--back); padding: .5rem; }
.page { display: grid; grid-template-columns: 17rem minmax(0, 1fr); }
nav { padding: 1rem; border-right: 1px solid var(--line); height: 100vh; overflow-y: auto; position: sticky; top: 0; font-size: .92rem; }
nav h2 { font-size: .8rem; margin: 1.1rem 0 .3rem; color: inherit; opacity: .75; }
nav ul { list-style: none; margin: 0; padding: 0; }
nav a { text-decoration: none; display: block; padding: .12rem 0; }
nav a[aria-current] { font-weight: 700; color: inherit; }
input { width: 100%; padding: .45rem; font: inherit; color: inherit; background: var(--soft); border: 1px solid var(--line); border-radius: .3rem; }
main { padding: 1.5rem 2rem 4rem; max-width: 62rem; min-width: 0; }
pre { background: var(--soft); padding: .8rem; overflow-x: auto; border-radius: .3rem; }
code { background: var(--soft); padding: .1em .25em; border-radius: .2em; font-size: .9em; }
pre code { padding: 0; background: none; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border: 1px solid var(--line); padding: .35rem .6rem; text-align: left; vertical-align: top; }
img { max-width: 100%; background: #fff; }
#found li { margin: .5rem 0; }
@media (max-width: 50rem) {
  .page { grid-template-columns: minmax(0, 1fr); }
  nav { position: static; height: auto; border-right: 0; border-bottom: 1px solid var(--line); }
  main { padding: 1rem; }
}
"""

SCRIPT = """
const field = document.getElementById("search"), found = document.getElementById("found");
const root = document.body.dataset.root;
function search() {
  const words = field.value.toLowerCase().split(/\\s+/).filter(Boolean);
  found.replaceChildren();
  if (!words.length) return;
  const rows = [];
  for (const [path, title, text] of INDEX) {
    const low = text.toLowerCase(), name = title.toLowerCase();
    if (!words.every(word => low.includes(word) || name.includes(word))) continue;
    const rank = words.filter(word => name.includes(word)).length;
    const at = Math.max(0, low.indexOf(words[0]) - 40);
    rows.push([rank, path, title, text.slice(at, at + 110)]);
  }
  rows.sort((one, other) => other[0] - one[0]);
  for (const [, path, title, part] of rows.slice(0, 12)) {
    const row = document.createElement("li"), link = document.createElement("a");
    link.href = root + path; link.textContent = title;
    row.append(link, document.createElement("br"), "… " + part + " …");
    found.append(row);
  }
  if (!rows.length) { const row = document.createElement("li"); row.textContent = "–"; found.append(row); }
}
field.addEventListener("input", search);
document.addEventListener("keydown", event => {
  if (event.key === "/" && document.activeElement !== field) { event.preventDefault(); field.focus(); }
  if (event.key === "Escape") { field.value = ""; search(); }
});
"""


def anchor(heading, separator="-"):
    """What links to a heading say, as the tests of the sources count it."""
    kept = "".join(c for c in heading.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", separator)


def title(text, path):
    found = re.search(r"^# (.+)$", text, re.M)
    return found[1].replace("`", "") if found else path


def reference(program):
    """The commands' own help: {path: (title, Markdown)}."""
    pages = {}
    with tempfile.TemporaryDirectory() as folder:
        man = Path(folder) / "man"
        subprocess.run([program, "generate", "man", "--output", man], check=True, capture_output=True)
        names = sorted(page.stem for page in man.glob("shardloom*.1"))
    commands = [name.split("-")[1:] for name in names]
    for words in commands:
        told = subprocess.run([program, *words, "--help"], check=True, capture_output=True, text=True)
        name = " ".join(["shardloom", *words])
        path = "reference/" + "-".join(["shardloom", *words])
        pages[path] = (name, f"# {name}\n\n```text\n{told.stdout.rstrip()}\n```\n")
    return pages


def sources(program):
    """All pages: {path: (title, Markdown, where it lies in the sources)}."""
    pages = {}
    for path in sorted((ROOT / "docs").rglob("*.md")):
        name = path.relative_to(ROOT / "docs").with_suffix("").as_posix()
        text = path.read_text()
        pages[name] = (title(text, name), text, f"docs/{name}.md")
    for name, file in ROOT_PAGES.items():
        text = (ROOT / file).read_text()
        pages[name] = (title(text, name), text, file)
    for name, (heading, text) in reference(program).items():
        pages[name] = (heading, text, f"docs/{name}.md")
    return pages


def linked(body, name, source, places, files, bad):
    """Rewrites links between sources to links between pages; others to files become text."""

    def change(found):
        before, target, after, inside = found.groups()
        if re.match(r"[a-z]+:", target):
            return found[0]
        file, _, part = target.partition("#")
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), file)) if file else source
        if place in places:
            page = places[place]
            if part:
                files.setdefault(page, set()).add((part, name))
            away = posixpath.relpath(f"{page}.html", posixpath.dirname(name) or ".")
            return f'<a{before}href="{away}{"#" + part if part else ""}"{after}>{inside}</a>'
        if not (ROOT / place).exists():
            bad.append(f"{source}: {target} leads nowhere")
        return inside

    return re.sub(r'<a([^>]*?)href="([^"]+)"([^>]*)>(.*?)</a>', change, body, flags=re.S)


def menu(pages, current):
    listed = {name for names in MENU.values() for name in names}
    sections = dict(MENU)
    sections["Reference"] = MENU["Reference"] + sorted(p for p in pages if p.startswith("reference/"))
    sections["中文"] = MENU["中文"] + [p for p in pages if p.startswith("zh/tasks/")]
    listed |= {name for names in sections.values() for name in names}
    sections["More"] = [name for name in pages if name not in listed]
    rows = []
    # Who reads Chinese finds the pages in Chinese first.
    order = sorted(sections, key=lambda heading: not (current.startswith("zh/") and heading == "中文"))
    for heading, names in ((heading, sections[heading]) for heading in order):
        names = [name for name in names if name in pages]
        if not names:
            continue
        rows.append(f"<h2>{html.escape(heading)}</h2><ul>")
        for name in names:
            away = posixpath.relpath(f"{name}.html", posixpath.dirname(current) or ".")
            here = ' aria-current="page"' if name == current else ""
            rows.append(f'<li><a href="{away}"{here}>{html.escape(pages[name][0])}</a></li>')
        rows.append("</ul>")
    return "".join(rows)


def page(pages, name, body):
    depth = "../" * name.count("/")
    language = "zh" if name.startswith("zh/") else "en"
    return f"""<!doctype html>
<html lang="{language}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(pages[name][0])} · shardloom</title><link rel="stylesheet" href="{depth}style.css"></head>
<body data-root="{depth}"><a class="skip" href="#text">Skip to the text</a><div class="page"><nav aria-label="Pages">
<input id="search" type="search" aria-label="Search" placeholder="Search ( / )"><ul id="found" aria-live="polite"></ul>
{menu(pages, name)}</nav><main id="text">{body}</main></div>
<script src="{depth}index.js"></script><script src="{depth}search.js"></script></body></html>
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", required=True)
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    pages = sources(asked.program)
    places = {source: name for name, (_, _, source) in pages.items()}
    wanted, bad, index, bodies, known = {}, [], [], {}, {}
    for name, (heading, text, source) in pages.items():
        maker = markdown.Markdown(
            extensions=["tables", "fenced_code", "toc", "sane_lists"],
            extension_configs={"toc": {"slugify": anchor}},
        )
        # A list that follows a line of text at once is one, as readers of the sources see it.
        text = re.sub(r"^((?!\s*[*\-|>#]|\s*\d+\. |```).+)\n(?=[*-] )", r"\1\n\n", text, flags=re.M)
        body = maker.convert(text)
        known[name] = set(re.findall(r'id="([^"]+)"', body))
        bodies[name] = linked(body, name, source, places, wanted, bad)
        plain = html.unescape(re.sub(r"<[^>]+>", " ", body))
        index.append([f"{name}.html", heading, re.sub(r"\s+", " ", plain).strip()])
    for name, parts in wanted.items():
        bad += [f"{by}: {name}.md has no #{part}" for part, by in sorted(parts) if part not in known[name]]
    if bad:
        raise SystemExit("launch/docs: " + "\n".join(bad))
    if asked.output.exists():
        if not (asked.output / "search.js").exists() and any(asked.output.iterdir()):
            raise SystemExit(f"launch/docs: {asked.output} is something else")
        shutil.rmtree(asked.output)
    for name, body in bodies.items():
        file = asked.output / f"{name}.html"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page(pages, name, body))
    for picture in (ROOT / "docs").rglob("*.svg"):
        file = asked.output / picture.relative_to(ROOT / "docs")
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, file)
    (asked.output / "style.css").write_text(STYLE)
    (asked.output / "search.js").write_text(SCRIPT)
    (asked.output / "index.js").write_text(f"const INDEX = {json.dumps(index, ensure_ascii=False)};\n")
    print(f"{len(bodies)} pages: {asked.output / 'index.html'}")


main()
