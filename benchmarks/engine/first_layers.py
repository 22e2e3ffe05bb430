"""Writes a copy of a GGUF model that has only its first layers: a stand-in for a draft model.

    first_layers.py MODEL.gguf LAYERS OUT.gguf

Nothing is trained: it is as fast as a draft model of that size, and agrees less than one would.
"""

import sys

import gguf
import numpy as np


def copy_fields(reader, writer, layers):
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        value = field.contents()
        if name.endswith(".block_count"):
            value = layers
        if kind == gguf.GGUFValueType.ARRAY:
            writer.add_key_value(name, value, kind, sub_type=field.types[-1])
        else:
            writer.add_key_value(name, value, kind)


def copy_tensors(reader, writer, layers):
    for t in reader.tensors:
        if t.name.startswith("blk.") and int(t.name.split(".")[1]) >= layers:
            continue
        writer.add_tensor(t.name, np.ascontiguousarray(t.data), raw_dtype=t.tensor_type)


def main(path, layers, out):
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    copy_fields(reader, writer, int(layers))
    copy_tensors(reader, writer, int(layers))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
