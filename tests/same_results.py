"""Are two folders of results the same? For a change that must not change any: run a job, exports and transcriptions
before and after, each into a folder of its own with the same names in it, and compare.

    python tests/same_results.py BEFORE AFTER

Compared byte for byte, except where a run says when, where and by which version it was made: seconds, the folder's own
path, commits, digests of such files; checkpoints and event files, which hold times, are left out. Exit code 1 and the
names of what differs, else 0.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

LEFT_OUT = re.compile(
    r"(^|/)(checkpoints|states)/|events\.|log\.txt$|(^|/)(started|done|config|export)\.json$|README\.md$|report\.html$"
)
TIMES = ("seconds", "stages", "role", "group")  # keys of JSON: how long it took, and what older versions did not write


def main(before: str, after: str) -> int:
    """Prints how many files of each kind are equal, and which are not."""
    folders = Path(before), Path(after)
    found = [{p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()} for root in folders]
    wanted = sorted(name for name in found[0] | found[1] if not LEFT_OUT.search(name))
    equal, other = Counter(), []
    for name in wanted:
        if name not in found[0] or name not in found[1]:
            other.append(f"only in {after if name in found[1] else before}: {name}")
        elif content(folders[0], name) != content(folders[1], name):
            other.append(f"differs: {name}")
        else:
            equal[Path(name).suffix] += 1
    print(", ".join(f"{count} {kind or 'others'}" for kind, count in equal.most_common()), "equal")
    print("\n".join(other) or "nothing differs")
    return 1 if other else 0


def content(root: Path, name: str):
    """What counts of a file."""
    data = (root / name).read_bytes().replace(str(root.resolve()).encode(), b"ROOT")
    if name.endswith(".json"):
        return plain(json.loads(data))
    if name.endswith(".jsonl"):
        return [plain(json.loads(line)) for line in data.decode().split("\n") if line]
    return data


def plain(value):
    """JSON without the keys of `TIMES`."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items() if key not in TIMES}
    return [plain(one) for one in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
