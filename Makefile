# Argosy. `make help` lists the targets.
#
# Sources are found by folder (see GROUPS): a new file needs no line here.
# BUILD=release|debug|asan|tsan picks the variant; each has its own folder under build/.

BUILD ?= release
ifeq ($(origin CC),default)
CC := gcc
endif
B := build/$(BUILD)
GEN := build/gen
MAKEFLAGS += --no-builtin-rules

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wmissing-prototypes \
        -Wstrict-prototypes -Wvla
ifeq ($(CI),true)
WARN += -Werror
endif
# Numerics: no contraction, never -ffast-math (kernels/NUMERICS.md).
CFLAGS_ALL = -std=c17 -D_GNU_SOURCE -I. -I$(GEN) -ffp-contract=off -fno-strict-aliasing \
             -fstack-protector-strong -g -pthread $(WARN) $(CFLAGS_$(BUILD)) $(CFLAGS)
CFLAGS_release := -O2
CFLAGS_debug := -O0
CFLAGS_asan := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
CFLAGS_tsan := -O1 -fsanitize=thread -fno-omit-frame-pointer
# The kernels carry the work: more optimisation in release only.
CFLAGS_kernels_release := -O3
LDFLAGS_asan := -fsanitize=address,undefined
LDFLAGS_tsan := -fsanitize=thread
LDFLAGS_ALL = -pthread -Wl,--as-needed $(LDFLAGS_$(BUILD)) $(LDFLAGS)
# The libraries by name: pkg-config's list for grpc names its private ones too.
LIBS := -lgrpc -lgpr -lprotobuf-c -lhiredis -levent_openssl -levent_pthreads -levent -ljson-c -lyaml \
        -lpcre2-8 -lutf8proc -lssl -lcrypto -lm

# ---- what there is to build -------------------------------------------------------------------

MAINS := runtime/worker/main.c router/main.c runtime/cli/main.c
# The engine's side of CUDA, in programs that have it; the library says that others have not.
CUDA_HOST_SRC := $(addprefix runtime/engine/,backend_cuda.c collective_nccl.c cuda_fast.c cuda_graph.c cuda_group.c cuda_lora.c cuda_memory.c cuda_offload.c cuda_pass.c cuda_picking.c cuda_probe.c)
# NVIDIA's libraries that are opened at first use; the emulator has their calls itself.
CUDA_LIBRARY_SRC := $(addprefix runtime/engine/,cublaslt_library.c nccl_library.c)
LIB_SRC := $(filter-out $(MAINS) $(CUDA_HOST_SRC) $(CUDA_LIBRARY_SRC) runtime/engine/nccl_absent.c,$(wildcard kernels/*.c kernels/*/ref.c kernels/*/cpu.c \
           runtime/*/*.c router/*.c router/*/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o) $(B)/gen/proto/cluster.pb-c.o
LIB := $(B)/libargosy.a
BIN_argosy-worker := runtime/worker/main.c
BIN_argosy-router := router/main.c
BIN_argosy := runtime/cli/main.c
BINS := $(if $(wildcard runtime/worker/main.c),argosy-worker) \
        $(if $(wildcard router/main.c),argosy-router) $(if $(wildcard runtime/cli/main.c),argosy)

# Kernels for GPUs, which the tests run on this CPU (kernels/simt/README.md). The programs have none.
CXX_CU := g++
SIMT_C := $(wildcard kernels/simt/*.c)
SIMT_OBJ := $(filter-out %/test.o,$(SIMT_C:%.c=$(B)/%.o))
CU_SRC := $(wildcard kernels/*/*.cu)
CU_OBJ := $(CU_SRC:%.cu=$(B)/%.cu.o)
WARN_CU := -Wall -Wextra -Wshadow=local $(filter -Werror,$(WARN))
# In release and debug the compiler's calls of TSan are the emulator's own functions (shadow.c).
CU_SHADOW := -fsanitize=thread --param tsan-instrument-func-entry-exit=0
CFLAGS_CU_release := -O1 $(CU_SHADOW)
CFLAGS_CU_debug := -O1 $(CU_SHADOW)
CFLAGS_CU_asan := $(CFLAGS_asan)
# Barriers change static variables, which no analysis of one file can know.
CFLAGS_CU = -x c++ -std=c++17 -fno-exceptions -fno-rtti -I. -ffp-contract=off -fno-strict-aliasing \
            -fno-ipa-reference -fno-ipa-modref -g $(WARN_CU) $(CFLAGS_CU_$(BUILD))

# The same once more for whole models: no shadow memory, what the machine can, checks of collectives.
CFLAGS_FAST := -O2 -fno-stack-protector -march=x86-64-v3 -DSIMT_FAST
FAST_CU_OBJ := $(CU_SRC:%.cu=$(B)/fast/%.cu.o)
FAST_SIMT_OBJ := $(patsubst %.c,$(B)/fast/%.o,$(filter-out kernels/simt/test.c,$(SIMT_C)))
FAST_OBJ := $(filter-out %/planted.cu.o,$(FAST_CU_OBJ)) $(FAST_SIMT_OBJ)

# A C test is a program: kernels/<op>/test.c, or tests/unit/<path of what it tests>/test_*.c.
TEST_SRC := $(wildcard kernels/*/test.c tests/unit/*/*/test_*.c tests/unit/*/test_*.c)
TEST_BIN := $(TEST_SRC:%.c=$(B)/%)
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_BIN := $(FUZZ_SRC:tests/fuzz/%.c=build/fuzz/%)
# Small programs that tests in Python drive: tests/tools/NAME.c, and the worker that only hashes.
TOOL_SRC := $(wildcard tests/tools/*.c) benchmarks/hash_worker/hash_worker.c tests/faults/proxy.c
TOOL_BIN := $(TOOL_SRC:%.c=$(B)/%)
# Programs that print a table of what they measure (benchmarks/AREA/NAME.c).
BENCH_SRC := $(filter-out benchmarks/hash_worker/% benchmarks/gpu/bench_%.c,$(wildcard benchmarks/*/*.c))
BENCH_BIN := $(BENCH_SRC:%.c=$(B)/%)

.DEFAULT_GOAL := all
.PHONY: all
all: $(BINS:%=$(B)/%) ## Build the programs into build/release/

$(B)/libargosy.a: $(LIB_OBJ)
	@rm -f $@
	@ar rcs $@ $^

# Not secondary files: keep the objects.
.SECONDARY:

$(B)/kernels/%.o: kernels/%.c
	@mkdir -p $(@D)
	@echo "  cc  $<"
	@$(CC) $(CFLAGS_ALL) $(CFLAGS_kernels_$(BUILD)) -MMD -MP -c $< -o $@

$(B)/%.o: %.c | $(GEN)/proto/cluster.pb-c.h
	@mkdir -p $(@D)
	@echo "  cc  $<"
	@$(CC) $(CFLAGS_ALL) -MMD -MP -c $< -o $@

# The page is in the program: the assembler reads it, and the compiler does not know.
$(B)/router/http/explorer_assets.o build/fuzz/router/http/explorer_assets.o: $(wildcard router/http/explorer/*)

$(B)/%.cu.o: %.cu
	@mkdir -p $(@D)
	@echo "  c++ $<"
	@$(CXX_CU) $(CFLAGS_CU) -MMD -MP -c $< -o $@

$(B)/fast/%.cu.o: %.cu
	@mkdir -p $(@D)
	@echo "  c++ $< (fast)"
	@$(CXX_CU) $(filter-out $(CFLAGS_CU_$(BUILD)),$(CFLAGS_CU)) $(CFLAGS_FAST) -MMD -MP -c $< -o $@

$(B)/fast/kernels/%.o: kernels/%.c
	@mkdir -p $(@D)
	@echo "  cc  $< (fast)"
	@$(CC) $(CFLAGS_ALL) $(CFLAGS_FAST) -MMD -MP -c $< -o $@

# Generated code is not held to our warnings.
$(B)/gen/proto/%.o: $(GEN)/proto/%.c
	@mkdir -p $(@D)
	@$(CC) $(filter-out $(WARN),$(CFLAGS_ALL)) -MMD -MP -c $< -o $@

$(GEN)/proto/%.pb-c.c $(GEN)/proto/%.pb-c.h: proto/%.proto
	@mkdir -p $(GEN)
	@protoc-c --c_out=$(GEN) $<

# The worker with CUDA, where nvcc is (deploy/gpu.mk has the rule for kernels).
# Without nvcc, and under sanitizers, which CUDA's libraries do not stand, it has the CPU alone.
NVCC ?= $(firstword $(wildcard /usr/local/cuda/bin/nvcc) $(shell command -v nvcc))
CUDA_HOME = $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
# Without NCCL's header the worker has no ranks on GPUs, and says so.
NCCL_H := $(firstword $(wildcard $(CUDA_HOME)/include/nccl.h /usr/include/nccl.h))
CUDA_C := $(if $(NCCL_H),$(CUDA_HOST_SRC) $(CUDA_LIBRARY_SRC),runtime/engine/nccl_absent.c \
            $(filter-out %/collective_nccl.c %/nccl_library.c,$(CUDA_HOST_SRC) $(CUDA_LIBRARY_SRC)))
CUDA_OBJ := $(patsubst %.cu,build/gpu/%.cu.o,$(filter-out kernels/simt/%,$(CU_SRC))) $(CUDA_C:%.c=$(B)/cuda/%.o)
CUDA_LIBS = -L$(CUDA_HOME)/lib64 -lcudart_static -lstdc++ -lrt -ldl -Wl,-rpath,$(CUDA_HOME)/lib64:$(CUDA_HOME)/lib
ifneq ($(and $(NVCC),$(filter release debug,$(BUILD))),)
$(B)/argosy-worker: $(CUDA_OBJ)
$(B)/argosy-worker: LIBS += $(CUDA_LIBS)
endif

$(B)/cuda/%.o: %.c
	@mkdir -p $(@D)
	@echo "  cc  $< (CUDA)"
	@$(CC) $(CFLAGS_ALL) -DARGOSY_CUDA -isystem $(CUDA_HOME)/include -MMD -MP -c $< -o $@

define link_bin
$(B)/$(1): $(B)/$(BIN_$(1):%.c=%.o) $(LIB)
	@echo "  ld  $$@"
	@$$(CC) $$(LDFLAGS_ALL) -o $$@ $$(filter %.o,$$^) $(LIB) $$(LIBS)
endef
$(foreach b,$(BINS),$(eval $(call link_bin,$(b))))

# The test of an operation that has a kernel for GPUs runs it too.
$(foreach o,$(CU_OBJ),$(eval $(dir $(o))test: $(o) $(SIMT_OBJ)))
# Parts of an operation's test: kernels/<op>/test_*.c.
TEST_PARTS := $(patsubst %.c,$(B)/%.o,$(wildcard kernels/*/test_*.c))
$(foreach o,$(TEST_PARTS),$(eval $(dir $(o))test: $(o)))
# So do the tests of the host side, over the emulated device.
KERNEL_CU_OBJ := $(filter-out %/planted.cu.o,$(CU_OBJ))
CUDA_HOST_OBJ := $(CUDA_HOST_SRC:%.c=$(B)/%.o)
$(patsubst %.c,$(B)/%,$(filter tests/unit/kernels/simt/%,$(TEST_SRC))): $(KERNEL_CU_OBJ) $(SIMT_OBJ)
EMULATED_TESTS := $(addprefix $(B)/tests/unit/runtime/engine/,test_backend_cuda test_collective_nccl test_cuda_engine test_cuda_fast test_cuda_group test_cuda_lora)
$(EMULATED_TESTS): $(CUDA_HOST_OBJ) $(KERNEL_CU_OBJ) $(SIMT_OBJ)
$(TEST_BIN): %: %.o $(LIB)
	@echo "  ld  $@"
	@$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(LIB) $(LIBS) -lcmocka

# Whole engines and a whole worker over the emulated device, fast but where sanitizers look.
EMULATION := $(CUDA_HOST_OBJ) $(if $(filter release debug,$(BUILD)),$(FAST_OBJ),$(KERNEL_CU_OBJ) $(SIMT_OBJ))
ENGINE_TESTS := $(addprefix $(B)/tests/unit/runtime/engine/,test_offload)
$(ENGINE_TESTS): $(EMULATION)
EMULATED := $(B)/argosy-worker-emulated
$(EMULATED): $(B)/runtime/worker/main.o $(B)/tests/emulated/machine.o $(EMULATION) $(LIB)
	@echo "  ld  $@"
	@$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(LIB) $(LIBS)

# logits_tool over the emulated device: every architecture's bits (tests/model).
EMULATED_TOOL := $(B)/tests/tools/logits_tool_emulated
$(EMULATED_TOOL): $(B)/tests/tools/logits_tool.o $(B)/tests/emulated/machine.o $(EMULATION) $(LIB)
	@echo "  ld  $@"
	@$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(LIB) $(LIBS)

# It has kernels of its own, to be compared.
$(B)/benchmarks/exactness/%.o: CFLAGS_$(BUILD) += $(CFLAGS_kernels_$(BUILD))

# Its engine stands in for the library's, so it comes first.
$(B)/benchmarks/hash_worker/hash_worker: $(B)/benchmarks/hash_worker/hash_engine.o

# The simulator of pools is of several files.
SIM_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard benchmarks/policy/sim/*.c))
$(B)/benchmarks/policy/bench_policy: $(SIM_OBJ)

$(TOOL_BIN) $(BENCH_BIN): %: %.o $(LIB)
	@echo "  ld  $@"
	@$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) $(LIB) $(LIBS)

# What the fault harness preloads into a program.
SHIM := $(B)/tests/faults/shim.so
$(SHIM): tests/faults/shim.c
	@mkdir -p $(@D)
	@echo "  ld  $@"
	@$(CC) -std=c17 -D_GNU_SOURCE -O1 -fPIC -shared $(WARN) -o $@ $<

# ---- fuzzing (clang's libFuzzer, ASan and UBSan) ------------------------------------------------

FUZZ_FLAGS := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all
# What the fuzzer follows. Not the kernels: they parse nothing, and their loops would be most of it.
FUZZ_COVERAGE := -fsanitize=fuzzer-no-link
build/fuzz/kernels/%.o: FUZZ_COVERAGE :=
FUZZ_OBJ := $(LIB_SRC:%.c=build/fuzz/%.o) build/fuzz/gen/proto/cluster.pb-c.o

build/fuzz/gen/proto/%.o: $(GEN)/proto/%.c
	@mkdir -p $(@D)
	@clang -std=c17 -D_GNU_SOURCE -I. -I$(GEN) -g $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -c $< -o $@

build/fuzz/%.o: %.c | $(GEN)/proto/cluster.pb-c.h
	@mkdir -p $(@D)
	@echo "  cc  $< (fuzz)"
	@clang -std=c17 -D_GNU_SOURCE -I. -I$(GEN) -ffp-contract=off -fno-strict-aliasing -g -pthread \
	    $(FUZZ_FLAGS) $(FUZZ_COVERAGE) -MMD -MP -c $< -o $@

build/fuzz/libargosy.a: $(FUZZ_OBJ)
	@rm -f $@
	@ar rcs $@ $^

build/fuzz/fuzz_trace: build/fuzz/benchmarks/policy/sim/trace.o

$(FUZZ_BIN): build/fuzz/%: build/fuzz/tests/fuzz/%.o build/fuzz/libargosy.a
	@echo "  ld  $@"
	@clang -fsanitize=fuzzer,address,undefined -pthread -Wl,--as-needed -o $@ $(filter %.o,$^) \
	    build/fuzz/libargosy.a $(LIBS)

# ---- what the compiler found out about headers ---------------------------------------------------

-include $(LIB_OBJ:.o=.d) $(MAINS:%.c=$(B)/%.d) $(TEST_BIN:=.d) $(TOOL_BIN:=.d) $(BENCH_BIN:=.d) $(B)/benchmarks/hash_worker/hash_engine.d \
         $(SIM_OBJ:.o=.d) $(CU_OBJ:.o=.d) $(SIMT_OBJ:.o=.d) $(FAST_OBJ:.o=.d) $(TEST_PARTS:.o=.d) $(CUDA_OBJ:.o=.d) $(CUDA_HOST_OBJ:.o=.d) $(B)/tests/emulated/machine.d $(FUZZ_OBJ:.o=.d) $(FUZZ_SRC:%.c=build/fuzz/%.d)

.PHONY: lib tests-build tools-build fuzz-build tsan-build
lib: $(LIB)
tests-build: $(TEST_BIN)
tools-build: $(TOOL_BIN) $(SHIM) $(EMULATED) $(EMULATED_TOOL)
fuzz-build: $(FUZZ_BIN)
# Where threads meet: what BUILD=tsan is for. Emulated GPUs are one thread's, and have TSan's calls for
# their own (kernels/simt).
TSAN_SRC := $(filter-out $(patsubst $(B)/%,%.c,$(EMULATED_TESTS) $(ENGINE_TESTS)),\
            $(filter tests/unit/router/% tests/unit/runtime/rpc/% tests/unit/runtime/engine/% \
            tests/unit/runtime/worker/% tests/unit/runtime/base/test_mailbox.c tests/unit/runtime/base/test_threads.c \
            tests/unit/runtime/grammar/test_grammar_store.c,$(TEST_SRC)))
tsan-build: $(TSAN_SRC:%.c=$(B)/%)

include deploy/targets.mk
include deploy/gpu.mk
