"""The rules of the tree that no compiler checks. Prints each breach with file and line.

What may include what (ARCHITECTURE.md, "Folders"), who may read the environment, which functions
are banned, which library stays behind which folder, how long a file may be.
"""

import re
import sys
from pathlib import Path

TOPS = ("kernels", "runtime", "router", "proto", "tests", "benchmarks")
SUFFIXES = (".c", ".h", ".cu", ".cuh")
LINES_MAX = 1000

RUNTIME = ("base", "format", "text", "grammar", "model", "engine", "rpc")
# Folder: the folders that its files may include. Its own is always allowed.
MAY_INCLUDE = {
    "kernels": (),
    "runtime/base": (),
    "runtime/format": ("runtime/base",),
    "runtime/text": ("runtime/base", "runtime/format"),
    "runtime/grammar": ("runtime/base", "runtime/text"),
    "runtime/model": ("runtime/base", "runtime/format", "kernels"),
    "runtime/engine": (
        *("runtime/base", "runtime/format", "runtime/text", "runtime/grammar"),
        *("runtime/model", "kernels"),
    ),
    "runtime/rpc": ("runtime/base", "proto"),
    "runtime/worker": (*(f"runtime/{r}" for r in RUNTIME), "kernels", "proto"),
    "runtime/keys": ("runtime/base",),
    "runtime/cli": ("runtime/base", "runtime/keys"),
    "router": (
        *("runtime/base", "runtime/rpc", "runtime/text", "runtime/format", "runtime/grammar"),
        *("runtime/keys", "proto"),
    ),
}
# A library that one folder hides from the others.
ONLY_IN = {"grpc/": ("runtime/rpc",), "cuda": ("kernels",), "hiredis/": ("router", "runtime/cli")}
GETENV_IN = ("runtime/base/config.c", "runtime/cli/")
BANNED = {
    "strcpy": "use memcpy with a length, or struct buf",
    "strcat": "use struct buf",
    "strncpy": "it may leave no NUL: use snprintf or struct buf",
    "strncat": "use struct buf",
    "sprintf": "use snprintf",
    "vsprintf": "use vsnprintf",
    "gets": "use fgets",
    "strtok": "use strcspn or strtok_r",
    "alloca": "use an arena",
    "gmtime": "use gmtime_r",
    "localtime": "use localtime_r",
    "atoi": "use strtol and check it",
    "atol": "use strtol and check it",
    "atof": "use strtod and check it",
    "system": "use posix_spawn or fork and exec",
}
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')
BANNED_CALL = re.compile(rf"(?<![\w.>])({'|'.join(BANNED)})\s*\(")
GETENV_CALL = re.compile(r"(?<!\w)(secure_)?getenv\s*\(")
COMMENT_OR_STRING = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.S)


def code_of(text):
    """The text with comments and strings blanked, line numbers kept."""
    return COMMENT_OR_STRING.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def area_of(path):
    """The folder whose rules a file falls under; None: tests and benchmarks see everything."""
    if path.startswith(("tests/", "benchmarks/")) or path.endswith("/test.c"):
        return None
    for area in MAY_INCLUDE:
        if path.startswith(area + "/"):
            return area
    return str(Path(path).parent)


def include_breach(path, area, quote, target):
    if area is None:
        return None
    for prefix, folders in ONLY_IN.items():
        if target.startswith(prefix) and not path.startswith(tuple(f + "/" for f in folders)):
            return f"only {', '.join(folders)} may include <{target}>"
    if quote == "<" or "/" not in target:
        return None
    allowed = (area, *MAY_INCLUDE.get(area, ()))
    if not any(target.startswith(folder + "/") for folder in allowed):
        return f"{area} may not include {target}"
    return None


def breaches(path, text):
    area = area_of(path)
    if area and area not in MAY_INCLUDE:
        yield 1, f"there is no rule yet for {area}: add one to MAY_INCLUDE"
    lines = text.split("\n")
    if len(lines) > LINES_MAX:
        yield 1, f"{len(lines)} lines: a file has at most {LINES_MAX}"
    for n, line in enumerate(lines, 1):
        if m := INCLUDE.match(line):
            if breach := include_breach(path, area, *m.groups()):
                yield n, breach
    for n, line in enumerate(code_of(text).split("\n"), 1):
        for m in BANNED_CALL.finditer(line) if area else ():
            yield n, f"{m.group(1)} is banned: {BANNED[m.group(1)]}"
        if area and GETENV_CALL.search(line) and not path.startswith(GETENV_IN):
            yield n, "getenv: options come from the config struct alone"


def main():
    count = 0
    for file in sorted(f for top in TOPS for f in Path(top).rglob("*") if f.suffix in SUFFIXES):
        for line, what in breaches(str(file), file.read_text(errors="replace")):
            print(f"{file}:{line}: {what}")
            count += 1
    sys.exit(1 if count else 0)


if __name__ == "__main__":
    main()
