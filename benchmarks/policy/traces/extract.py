"""The two public traces in the form that trace.c reads: a line a request, "ms,prompt,output,blocks".

    python3 extract.py FOLDER    FOLDER has mooncake_conversation.jsonl and azure_code_2023.csv

`blocks`: one number for each 512 tokens of the prompt, equal numbers for equal prefixes; runs as A-B.
"""

import datetime
import json
import sys
from pathlib import Path


def runs(ids):
    out = []
    for i in ids:
        if out and i == out[-1][1] + 1:
            out[-1][1] = i
        else:
            out.append([i, i])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in out)


def main(folder):
    here = Path(__file__).parent
    with (here / "mooncake_conversation.txt").open("w") as to:
        to.write("# block_tokens 512\n")
        for line in (folder / "mooncake_conversation.jsonl").open():
            r = json.loads(line)
            at, n_in, n_out = r["timestamp"], r["input_length"], r["output_length"]
            to.write(f"{at},{n_in},{n_out},{runs(r['hash_ids'])}\n")
    with (here / "azure_code_2023.txt").open("w") as to:
        first = None
        for line in (folder / "azure_code_2023.csv").read_text().splitlines()[1:]:
            at, n_in, n_out = line.split(",")
            at = datetime.datetime.fromisoformat(at[:26])
            first = first or at
            ms = round((at - first).total_seconds() * 1000)
            to.write(f"{ms},{n_in},{n_out}\n")


main(Path(sys.argv[1]))
