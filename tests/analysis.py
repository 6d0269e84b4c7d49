"""Runs the queries of docs/analysis.md in one engine and prints what they answer: python3 analysis.py duckdb|spark DOC

Works in the present directory, which has `export/` and `shards/`. One JSON object: heading to the list of its answers.
"""
import json
import re
import sys


def blocks(path):
    """Heading, language and words of each fenced block, with its text."""
    heading = ""
    fence = None
    for line in open(path):
        if fence is None:
            if line.startswith("## "):
                heading = line[3:].strip()
            found = re.match(r"```(\w+) ?(.*)$", line)
            if found:
                fence = (found[1], found[2].split(), [])
        elif line.startswith("```"):
            yield heading, fence[0], fence[1], "".join(fence[2])
            fence = None
        else:
            fence[2].append(line)


def plain(value):
    """As JSON has it."""
    if isinstance(value, (int, float, str, type(None))):
        return value
    if isinstance(value, dict):
        return dict(sorted(value.items()))
    return str(value)


def main(engine, doc):
    if engine == "duckdb":
        import duckdb

        db = duckdb.connect()
        query = lambda text: [list(r) for r in (db.execute(text).fetchall())]
    else:
        from pyspark.sql import SparkSession

        spark = (
            SparkSession.builder.master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.shuffle.partitions", "1")
            .config("spark.driver.memory", "512m")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .getOrCreate()
        )
        query = lambda text: [list(r) for r in spark.sql(text).collect()]
    answers = {}
    for heading, language, words, text in blocks(doc):
        if language == "python" and engine in words:
            exec(text, {"spark": spark})
        elif language == "sql" and (engine in words or not words):
            rows = [[plain(v) for v in row] for row in query(text.strip().rstrip(";"))]
            answers.setdefault(heading, []).append(rows)
    print(json.dumps(answers))


main(*sys.argv[1:])
