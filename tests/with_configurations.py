#!/usr/bin/env python3
"""Every configuration that MindSpore Transformers ships is read by `shardloom load`, or refused for a stated reason.

    tests/with_configurations.py [--write]

Fetches its wheels from PyPI into a temporary directory, runs `shardloom load --config FILE --dry-run` (from PATH, see
`. launch/env`) for each YAML file in them, and compares with tests/data/configurations/shipped.tsv; --write makes that anew.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSIONS = ["1.6.0", "1.7.0", "1.8.0", "1.9.0", "2.0.0", "2.1.0"]
TABLE = Path(__file__).parent / "data/configurations/shipped.tsv"
OUTCOMES = {
    "no weights are asked for": "random",
    "placeholder": "placeholder",
    "none of the keys": "other",
}


def outcome(path):
    run = subprocess.run(["shardloom", "load", "--config", str(path), "--dry-run"], capture_output=True, text=True)
    text = run.stdout + run.stderr
    return next((word for said, word in OUTCOMES.items() if said in text), f"{run.returncode}: {text.strip()}")


def main():
    rows = []
    with tempfile.TemporaryDirectory() as room:
        for version in VERSIONS:
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", room,
                            f"mindformers=={version}"], check=True)
            wheel = next(Path(room).glob(f"mindformers-{version}-*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                for name in sorted(n for n in archive.namelist() if n.endswith((".yaml", ".yml"))):
                    path = Path(archive.extract(name, Path(room) / version))
                    rows.append(f"{version}\t{name}\t{outcome(path)}")
    text = "\n".join(rows) + "\n"
    if "--write" in sys.argv:
        TABLE.write_text(text)
    wrong = sorted(set(TABLE.read_text().splitlines()) ^ set(rows))
    for row in wrong:
        print(row)
    print(f"{len(rows) - len(wrong)} passed, {len(wrong)} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
