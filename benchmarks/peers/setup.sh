#!/bin/sh
# Builds what `make bench-engine` compares with, under build/peers:
#
#     llama.cpp/    the source, from the package that versions.sh pins
#     native/       llama.cpp for this very machine (GGML_NATIVE), with its bench tools
#     avx2/         ggml alone, held to AVX2, FMA and F16C: native's programs run with it too
#     avx512/       the same with what Zen 4 has, AVX-512 and VNNI but no AMX
#     models/       copies of the models in other formats, by llama.cpp's own quantize
#
# Each has a stamp that names what it was made from: a second run does nothing. The build takes 5 to
# 15 minutes of 2 cores.
set -eu

cd "$(dirname "$0")/../.."
. benchmarks/peers/versions.sh
peers=build/peers
jobs=$(nproc)

say() { echo "benchmarks/peers/setup: $*" >&2; }
fail() {
    say "$*"
    exit 1
}
is_stamped() { [ "$(cat "$1/.stamp" 2>/dev/null)" = "$2" ]; }

for tool in cmake ninja g++ python3; do
    command -v $tool >/dev/null || fail "$tool is missing: deploy/setup.sh bench installs it"
done
mkdir -p $peers
exec 9>$peers/.lock
flock 9 # another one may be at it

# gcc before 12.4 and 13.3 believes that ldtilecfg reads 8 of its 64 bytes and leaves the other stores
# out (GCC PR 114098), so that llama.cpp ends with SIGILL where there is AMX. It takes no harm
# elsewhere.
mend_amx() {
    file=$peers/llama.cpp/ggml/src/ggml-cpu/amx/mmq.cpp
    sed -i 's/^    _tile_loadconfig(&tc);$/    __asm__ volatile("" : : "r"(\&tc) : "memory"); _tile_loadconfig(\&tc);/' $file
    grep -q '__asm__ volatile.*_tile_loadconfig' $file || fail "$file is not as expected"
}

fetch() {
    is_stamped $peers/llama.cpp "$LLAMA_SDIST_SHA256" && return
    say "fetching $LLAMA_SDIST (77 MB; once)"
    new=$peers/.new
    rm -rf $new
    mkdir -p $new
    python3 -m venv $new/venv || fail "python3 -m venv failed: apt-get install python3-venv"
    $new/venv/bin/python -m pip install --disable-pip-version-check -q "$SCIKIT_BUILD_REQUIREMENT" &&
        $new/venv/bin/python -m pip download --disable-pip-version-check -q --no-deps \
            --no-cache-dir --no-binary llama-cpp-python --no-build-isolation --dest $new \
            "$LLAMA_SDIST_REQUIREMENT" || fail "pip could not download it. Is there a network?"
    echo "$LLAMA_SDIST_SHA256  $new/$LLAMA_SDIST.tar.gz" | sha256sum -c --quiet - ||
        fail "$LLAMA_SDIST.tar.gz has the wrong SHA-256"
    tar -xzf $new/$LLAMA_SDIST.tar.gz -C $new "$LLAMA_SDIST/vendor/llama.cpp"
    rm -rf $peers/llama.cpp "$new/$LLAMA_SDIST/vendor/llama.cpp/.git"
    mv "$new/$LLAMA_SDIST/vendor/llama.cpp" $peers/llama.cpp
    rm -rf $new
    mend_amx
    echo "$LLAMA_SDIST_SHA256" >$peers/llama.cpp/.stamp
}

# build FOLDER TARGETS CMAKE-OPTIONS…
build() {
    folder=$peers/$1
    targets=$2
    shift 2
    stamp="$LLAMA_SDIST_SHA256 $*"
    is_stamped "$folder" "$stamp" && return
    say "building llama.cpp in $folder ($*)"
    cmake -S $peers/llama.cpp -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Release \
        -DBUILD_SHARED_LIBS=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
        -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF \
        -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF "$@" >"$folder.log" 2>&1 &&
        nice cmake --build "$folder" -j "$jobs" --target $targets >>"$folder.log" 2>&1 ||
        fail "the build failed: see $folder.log"
    echo "$stamp" >"$folder/.stamp"
}

# requantise MODEL.gguf TYPE: to models/NAME-TYPE.gguf
requantise() {
    out="$peers/models/$(basename "$1" .gguf)-as-$2.gguf"
    [ -s "$out" ] && return
    say "writing $out"
    mkdir -p $peers/models
    $peers/native/bin/llama-quantize --allow-requantize "$1" "$out.part" "$2" >"$out.log" 2>&1 ||
        fail "llama-quantize failed: see $out.log"
    mv "$out.part" "$out"
}

fetch
build native "llama-batched-bench llama-quantize" -DGGML_NATIVE=ON
build avx2 ggml -DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON
build avx512 ggml -DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON \
    -DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON
models/fetch.py smollm2-135m gemma3-270m >&2
for type in Q4_0 Q8_0 Q6_K; do
    requantise models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf $type
done
for type in Q4_0 Q8_0 Q6_K; do
    requantise models/gemma3-270m/gemma-3-270m-q4_k_m.gguf $type
done
say "ready"
