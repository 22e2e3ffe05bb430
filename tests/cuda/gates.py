"""What the real compiler made of the kernels for GPUs, held to what each kernel says of itself.

    python tests/cuda/gates.py CUBIN...        build/cuda/ARCH/kernels/OP/NAME.cubin

A kernel's source says, in a line of a comment, what must be true of its machine code:

    gate: NAME threads=128 blocks=8 [shared=BYTES] [loop=LDG.E.128,IDP.4A] [has=BAR.SYNC]

threads a block and bytes of dynamic shared memory at most; blocks: how many must fit on an SM at
once, by registers, shared memory and threads; `loop`: instructions that some loop must contain, by
the beginning of their name, A|B for one that the architectures call differently; `has`: instructions
that the kernel must contain at all. Two gates of a
name, for kernels whose template parameters differ: the instances are told apart by [PARAMETERS]
behind the name, a text that c++filt's form of the instance must contain. An instance without a gate is a failure, a gate
without an instance too, and so are local memory and a stack.

Limits of an SM: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

WARP = 32
GATE = re.compile(r"\bgate: (?P<name>\w+)(?:\[(?P<which>[^\]]*)\])?(?P<rest>(?: \w+=\S+)+)")
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(?P<op>[A-Z][A-Z0-9_.]*)(?P<args>[^;]*);")
LABEL = re.compile(r"^(\.L_x_\d+):")
TARGET = re.compile(r"`\((\.L_x_\d+)\)")


@dataclass
class Sm:
    registers: int = 65536
    register_unit: int = 256  # of a warp
    warps: int = 64
    blocks: int = 32
    shared: int = 0  # bytes
    block_shared: int = 1024  # the system's own, in every block


SM = {"sm_80": Sm(shared=164 * 1024), "sm_90a": Sm(shared=228 * 1024)}


@dataclass
class Kernel:
    name: str  # demangled, with its template's parameters
    registers: int
    shared: int  # static
    local: int
    ops: list
    loop_ops: set


def tool(name):
    """From the packages of build/venv: CUDA's own toolkit does not always have them."""
    found = sorted(Path(sys.prefix).glob(f"lib/python*/site-packages/nvidia/*/bin/{name}"))
    if not found:
        sys.exit(f"gates: no {name} in {sys.prefix}: tests/setup.sh installs it")
    return found[-1]


def output_of(*command):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout


def demangled(names):
    text = subprocess.run(["c++filt"], input="\n".join(names), check=True, capture_output=True, text=True).stdout
    return dict(zip(names, text.splitlines()))


def read_code(cubin):
    """function -> (instructions in order, those that are within a loop). A loop is what lies between
    a label and a branch back to it."""
    code, function, labels, ops = {}, None, {}, []
    for line in output_of(tool("nvdisasm"), "-c", cubin).splitlines():
        if line.startswith(".text."):
            function, labels, ops = line[len(".text.") : -1], {}, []
            code[function] = (ops, set())
        elif m := LABEL.match(line):
            labels[m[1]] = len(ops)
        elif m := INSTRUCTION.match(line):
            ops.append(m["op"])
            target = TARGET.search(m["args"])
            if m["op"].startswith("BRA") and target and target[1] in labels:
                code[function][1].update(ops[labels[target[1]] :])
    return code


def read_kernels(cubin):
    code = read_code(cubin)
    usage = output_of(tool("cuobjdump"), "-res-usage", cubin)
    found = re.findall(r"Function (\S+):\n\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
    names = demangled([f[0] for f in found])
    return [
        Kernel(names[f], int(reg), int(shared), int(stack) + int(local), *code[f])
        for f, reg, stack, shared, local in found
    ]


def blocks_of(sm, kernel, threads, dynamic):
    """Blocks of it that an SM holds at once."""
    warps = -(-threads // WARP)
    of_warp = -(-kernel.registers * WARP // sm.register_unit) * sm.register_unit
    shared = kernel.shared + dynamic + sm.block_shared
    return min(sm.registers // of_warp // warps, sm.warps // warps, sm.shared // shared, sm.blocks)


def has_op(ops, wanted):
    return any(op.startswith(w) for w in wanted.split("|") for op in ops)


def faults_of(arch, kernel, gate):
    if kernel.local:
        yield f"{kernel.local} bytes of local memory"
    words = dict(w.split("=", 1) for w in gate.split())
    unknown = words.keys() - {"threads", "blocks", "shared", "loop", "has"}
    if unknown or not {"threads", "blocks"} <= words.keys():
        yield f"a gate needs threads= and blocks=, and has no {' '.join(sorted(unknown)) or 'others'}"
        return
    fits = blocks_of(SM[arch], kernel, int(words["threads"]), int(words.get("shared", 0)))
    if fits < int(words["blocks"]):
        yield f"{fits} blocks an SM, its gate says {words['blocks']} ({kernel.registers} registers, {kernel.shared} bytes of shared memory)"
    for key, ops in (("loop", kernel.loop_ops), ("has", kernel.ops)):
        for wanted in words.get(key, "").split(",") if key in words else []:
            if not has_op(ops, wanted):
                yield f"no {wanted}" + (" in any loop" if key == "loop" else "")


def check(cubin):
    """Lines that say what is wrong, and how many kernels were looked at."""
    arch, source = cubin.parts[-4], Path(*cubin.parts[-3:]).with_suffix(".cu")
    gates = [m.groupdict() | {"used": False} for m in GATE.finditer(source.read_text())]
    faults, kernels = [], read_kernels(cubin)
    for kernel in kernels:
        name = re.split(r"[<(]", kernel.name.removeprefix("void "))[0].rpartition("::")[2]
        mine = [g for g in gates if g["name"] == name and (g["which"] or "") in kernel.name]
        if len(mine) != 1:
            faults.append(f"{source} {arch} {kernel.name}: {len(mine)} gates")
            continue
        mine[0]["used"] = True
        faults += [f"{source} {arch} {kernel.name}: {f}" for f in faults_of(arch, kernel, mine[0]["rest"])]
    faults += [f"{source} {arch}: no kernel has the gate {g['name']}" for g in gates if not g["used"]]
    return faults, len(kernels)


def main():
    n, faults = 0, []
    for cubin in map(Path, sys.argv[1:]):
        found, kernels = check(cubin)
        faults += found
        n += kernels
    print("\n".join(faults + [f"{n} kernels through their gates, {len(faults)} faults"]))
    sys.exit(1 if faults or not n else 0)


if __name__ == "__main__":
    main()
