"""Puts the last run of a target into the table of docs/fuzzing.md: file, target, seconds, inputs, cover, what was seen."""

import re
import sys
import time

path, target, seconds, inputs, cover, said = sys.argv[1:]
whole = open(path).read()
row = f"| `{target}` | {time.strftime('%Y-%m-%d')} | {int(seconds)} s | {inputs} | {cover} | {said} |"
whole, count = re.subn(rf"^\| `{re.escape(target)}` \|.*$", lambda _: row, whole, count=1, flags=re.M)
if not count:
    sys.exit(f"{path}: there is no row for {target}")
open(path, "w").write(whole)
