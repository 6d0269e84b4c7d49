"""Puts the last run of a target into the table of docs/fuzzing.md: file, target, seconds, seconds of CPU time, inputs, cover, what was seen."""

import re
import sys
import time

path, target, seconds, cpu, inputs, cover, said = sys.argv[1:]
whole = open(path).read()
row = f"| `{target}` | {time.strftime('%Y-%m-%d')} | {int(seconds)} s | {cpu} s | {inputs} | {cover} | {said} |"
whole, count = re.subn(rf"^\| `{re.escape(target)}` \|.*$", lambda _: row, whole, count=1, flags=re.M)
if not count:
    sys.exit(f"{path}: there is no row for {target}")
open(path, "w").write(whole)
