# What a machine with a GPU is for: the kernels' tests and benchmarks on it. EMULATED=1 runs the same
# programs over the emulator (kernels/simt), so that they are known to work on the day there is one.
EMULATED ?=

# The emulator's place is taken by tests/cuda/hardware.c.
GPU := build/gpu
GPU_CU_OBJ := $(patsubst %.cu,$(GPU)/%.cu.o,$(filter-out %/planted.cu,$(CU_SRC)))
GPU_ARCH := -gencode arch=compute_80,code=[sm_80,compute_80] -gencode arch=compute_90a,code=sm_90a
GPU_TEST_SRC := $(filter $(patsubst %,%test.c,$(sort $(dir $(filter-out kernels/simt/%,$(CU_SRC))))),$(TEST_SRC)) \
                tests/unit/kernels/simt/test_probes.c tests/unit/kernels/simt/test_mma.c
GPU_TESTS := $(GPU_TEST_SRC:%.c=%)

# What check-cuda says of registers is not looked at: a program that spills is a program.
$(GPU)/%.cu.o: %.cu
	@mkdir -p $(@D)
	@echo "  nvcc $<"
	@$(shell command -v ccache) $(NVCC) $(filter-out -Xptxas --warn-on%,$(NVCC_FLAGS)) $(GPU_ARCH) -Xcompiler -fno-exceptions -MD -MF $(@:.o=.d) -c -o $@ $<

$(GPU_TESTS:%=$(GPU)/%): $(GPU)/%: build/release/%.o build/release/cuda/tests/cuda/hardware.o $(GPU_CU_OBJ) build/release/libargosy.a
	@mkdir -p $(@D)
	@echo "  ld  $@"
	@g++ -pthread -o $@ $(filter %.o,$^) build/release/libargosy.a $(LIBS) $(CUDA_LIBS) -lcmocka

$(foreach o,$(TEST_PARTS),$(eval $(GPU)/$(dir $(o:$(B)/%=%))test: $(o:$(B)/%=build/release/%)))

# The benchmark calls CUDA's runtime and cuBLASLt itself, or what the emulator has of them.
BENCH_PARTS := $(patsubst %.c,%.o,$(filter-out %/roofline.c,$(wildcard benchmarks/gpu/*.c)))
$(GPU)/benchmarks/gpu/bench_gpu: $(BENCH_PARTS:%=build/release/cuda/%) $(CUDA_OBJ) build/release/libargosy.a
	@mkdir -p $(@D)
	@echo "  ld  $@"
	@g++ -pthread -o $@ $(filter %.o,$^) build/release/libargosy.a $(LIBS) $(CUDA_LIBS)

build/release/benchmarks/gpu/bench_gpu: $(BENCH_PARTS:%=build/release/%) $(EMULATION) build/release/libargosy.a
	@echo "  ld  $@"
	@$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) build/release/libargosy.a $(LIBS)

-include $(GPU_CU_OBJ:.o=.d) $(BENCH_PARTS:%.o=build/release/cuda/%.d) $(BENCH_PARTS:%.o=build/release/%.d) build/release/cuda/tests/cuda/hardware.d

need_nvcc = $(if $(EMULATED)$(NVCC),,echo "$@: there is no nvcc here: install CUDA 12.8 or later (EMULATED=1: the emulator)" >&2; exit 2)
.PHONY: gpu-tests gpu-check gpu-bench
gpu-tests: $(GPU_TESTS:%=$(GPU)/%)
gpu-check: ## On a machine with a GPU: every kernel's bits against the reference (EMULATED=1: without one)
	@deploy/setup.sh test
	@$(need_nvcc)
	@$(SUBMAKE) $(if $(EMULATED),$(GPU_TESTS:%=build/release/%),gpu-tests) >&2
	@python3 -m tests.cuda.gpu_check $(if $(EMULATED),--emulated) $(if $(EMULATED),build/release,$(GPU)) $(GPU_TESTS)
gpu-bench: ## On a machine with a GPU: what each kernel reaches of its bandwidth and peak (EMULATED=1: tiny shapes)
	@deploy/setup.sh run
	@$(need_nvcc)
	@$(SUBMAKE) $(if $(EMULATED),build/release,$(GPU))/benchmarks/gpu/bench_gpu >&2
	@$(if $(EMULATED),build/release,$(GPU))/benchmarks/gpu/bench_gpu $(if $(EMULATED),small)
