"""tests/layering.py sees each kind of breach, and only breaches."""

import pytest

from tests.layering import breaches

FINE = [
    ("kernels/rope/cpu.c", '#include "kernels/kernels.h"\n#include <immintrin.h>\n'),
    ("kernels/rope/test.c", '#include "runtime/base/rng.h"\n'),
    ("router/http/api.c", '#include "runtime/text/chat.h"\n#include "proto/cluster.pb-c.h"\n'),
    ("runtime/rpc/rpc.c", "#include <grpc/grpc.h>\n"),
    ("runtime/cli/plan.c", 'char *t = getenv("TMPDIR");\n'),
    ("runtime/base/buf.c", "/* like strcpy( */\nchar *s = \"strcat(\"; // gets(\nx->system(y);\n"),
    ("runtime/base/buf.c", "my_strcpy(a, b);\nstrcpy_safe(a);\n"),
    ("tests/unit/router/test_x.c", '#include "router/http/http.h"\n#include "kernels/kernels.h"\n'),
    ("runtime/base/buf.c", "x\n" * 999),
]
WRONG = [
    ("kernels/rope/cpu.c", '#include "runtime/base/err.h"\n', 1),
    ("runtime/base/buf.c", '\n#include "runtime/text/chat.h"\n', 2),
    ("runtime/text/chat.c", '#include "runtime/engine/engine.h"\n', 1),
    ("runtime/cli/up.c", '#include "router/config.h"\n', 1),
    ("router/pool/pool.c", '#include "runtime/engine/engine.h"\n', 1),
    ("router/main.c", "#include <grpc/grpc.h>\n", 1),
    ("runtime/engine/engine.c", "\n\nchar *x = getenv(\"X\");\n", 3),
    ("runtime/text/chat.c", "strcpy(a, b);\n", 1),
    ("router/main.c", "a = (char *)alloca (9);\n", 1),
    ("runtime/base/buf.c", "x\n" * 1001, 1),
    ("runtime/new/x.c", "", 1),
]


@pytest.mark.parametrize("path, text", FINE)
def test_layering_lets_pass(path, text):
    assert list(breaches(path, text)) == []


@pytest.mark.parametrize("path, text, line", WRONG)
def test_layering_finds(path, text, line):
    assert [n for n, _ in breaches(path, text)] == [line]
