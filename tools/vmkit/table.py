"""What was seen, as tables."""

import json
import re
import time

from .kernel import SUITES


def text(results):
    """For a terminal: what, how it went, what was seen."""
    lines = []
    for r in results:
        lines.append(f"  {'ok   ' if r['ok'] else 'WRONG'} {r['driver'] or '-':11} {r['mode']:30} {r['seen']}")
        if not r["ok"]:
            lines += [f"          {x}" for x in r["lines"][-12:]]
    return lines


def rows(results):
    """For Markdown."""
    out = ["| | what was tried | what was seen | |", "| --- | --- | --- | --- |"]
    for r in results:
        seen = r["seen"].replace("|", "\\|")
        out.append(f"| {r['driver'] or '-'} | {r['mode']} | {seen} | {'yes' if r['ok'] else '**no**'} |")
    return out


def between(file, mark, lines):
    """Puts lines between a file's two marks."""
    whole = file.read_text()
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.S)
    if not pattern.search(whole):
        raise ValueError(f"{file}: there is no place marked '{begin}'")
    file.write_text(pattern.sub(lambda _: "\n".join([begin, *lines, end]), whole))


def short(results):
    """One line a driver and mode: what matters of a row."""
    out = {}
    for r in results:
        if not r["driver"]:
            continue
        kind = "span" if r["mode"].startswith("span") else "inline"
        words = ""
        if kind == "span":
            zero, rings = r["facts"].get("zero_copy", 0), r["facts"].get("rings", 0)
            words = f"{'native' if 'native mode' in r['seen'] else 'generic'} XDP, {rings} ring{'s' * (rings != 1)}, "
            words += "zero-copy" if zero and zero == rings else "copied"
        else:
            words = "clsact filters" if "clsact" in " ".join(r["lines"]) else "tcx" if "tcx" in " ".join(r["lines"]) else ""
        ok, said = out.get((r["driver"], kind), (True, ""))
        out[r["driver"], kind] = (ok and r["ok"], said or words)
    return out


def write(project, series, release, results, service=False):
    """The last result of a kernel into docs/kernels.md, and of all kernels into the README; as a service, into the former alone."""
    if service:
        told = f"Linux {release}, {results[0]['driver']}, `tools/vm --service --kernel {series}`, {time.strftime('%Y-%m-%d')}"
        between(project / "docs/kernels.md", f"service {series}", [told, "", *rows(results)])
        return
    head = f"## Linux {release}"
    told = f"`tools/vm --kernel {series}`, {time.strftime('%Y-%m-%d')}"
    between(project / "docs/kernels.md", f"kernel {series}", [head, "", told, "", *rows(results)])
    readme(project)


def readme(project):
    """Kernel by driver by mode, from what each kernel's last whole run left."""
    runs = []
    for file in sorted((project / "target/vm").glob("*/whole.json")):
        saved = json.loads(file.read_text())
        runs.append((saved["release"], short(saved["results"])))
    # A machine that has tried one kernel knows nothing of the others' columns.
    if len(runs) < len(SUITES):
        return
    runs.sort(key=lambda run: [int(n) for n in re.findall(r"\d+", run[0])[:2]])
    lines = ["| driver | mode | " + " | ".join(release.split("-")[0].split("+")[0] for release, _ in runs) + " |"]
    lines.append("| --- | --- |" + " --- |" * len(runs))
    for driver, kind in sorted({key for _, run in runs for key in run}, key=lambda key: (key[1], key[0])):
        cells = []
        for _, run in runs:
            ok, words = run.get((driver, kind), (None, "not tried"))
            cells.append(words if ok is None else f"{words}: as it should" if ok else f"{words}: **no**")
        lines.append(f"| {driver} | {kind} | " + " | ".join(cells) + " |")
    between(project / "README.md", "kernels", ["", *lines, ""])
