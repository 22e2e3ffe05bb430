# What people type. The rules that compile are in the Makefile.

# make run:  MODEL=NAME|PATH  WORKERS=N  PORT=N  ONCE="a prompt"
MODEL ?= smollm2-135m
WORKERS ?= 1
PORT ?=
export ONCE

# make test: FUZZ_SECONDS=N (each target)  CHECKS="layering format lint"  ONLY=part-of-a-name
FUZZ_SECONDS ?= 5
CHECKS ?=
ONLY ?=
TEST_MODELS := smollm2-135m gemma3-270m
# What measures time or starts clusters of the real parts runs alone, the rest two at a time.
PYTESTS_ALONE := $(wildcard tests/api tests/e2e tests/faults tests/explorer)
PYTESTS := $(filter-out $(PYTESTS_ALONE),$(patsubst %/,%,$(sort $(dir $(wildcard tests/*/test_*.py)))))
# Once more with ASan and UBSan in the programs.
PYTESTS_ASAN := tests/cli@asan
PYTESTS_ALONE_ASAN := tests/e2e/test_losses.py@asan

SUBMAKE = $(MAKE) --no-print-directory -j$(shell nproc)
VENV_PYTHON := build/venv/bin/python

.PHONY: help run test test-exactness test-faults clean distclean check-layering check-format check-lint format
help: ## List the targets
	@awk -F':.*## ' '/^[a-z][a-z-]*:.*## /{printf "  make %-16s %s\n", $$1, $$2}' Makefile deploy/targets.mk deploy/gpu.mk

run: ## Set up what is missing, then serve a model here until Ctrl-C (ONCE="…": one answer)
	@deploy/setup.sh run
	@$(if $(wildcard $(MODEL)),,models/fetch.py '$(MODEL)' >&2)
	@$(SUBMAKE) all >&2
	@set -- --model '$(MODEL)' --workers '$(WORKERS)' $(if $(PORT),--port '$(PORT)'); \
	if [ -n "$$ONCE" ]; then set -- "$$@" --once "$$ONCE"; fi; \
	exec build/release/argosy up "$$@"

test: ## Set up what is missing, build every variant, run every test, sum up
	@deploy/setup.sh test
	@tests/setup.sh
	@models/fetch.py $(TEST_MODELS) >&2
	@# What does not build is counted as failed by tests/run.py: go on.
	-@$(SUBMAKE) -k all tests-build tools-build fuzz-build
	-@$(SUBMAKE) -k BUILD=asan all tests-build tools-build
	-@$(SUBMAKE) -k BUILD=tsan tsan-build
	@$(VENV_PYTHON) tests/run.py --fuzz-seconds $(FUZZ_SECONDS) --only '$(ONLY)' \
	    --cmocka $(TEST_SRC:%.c=build/release/%) $(TEST_SRC:%.c=build/asan/%) \
	    $(TSAN_SRC:%.c=build/tsan/%) \
	    --fuzz $(FUZZ_BIN) --pytest $(PYTESTS) $(PYTESTS_ASAN) --pytest-alone $(PYTESTS_ALONE) $(PYTESTS_ALONE_ASAN) --check $(CHECKS)

# ENGINES=N, of 5 schedules each, shared out over a process a core: about 3 s of a core a schedule.
ENGINES ?= 200
test-exactness: ## 1,000 random schedules of 64 requests on the real model, each against itself alone
	@deploy/setup.sh test
	@models/fetch.py $(TEST_MODELS) >&2
	@$(SUBMAKE) build/release/tests/unit/runtime/engine/test_exact >&2
	@n=$$(nproc); pids=; for i in $$(seq $$n); do \
	    build/release/tests/unit/runtime/engine/test_exact $$((($(ENGINES) + n - 1) / n)) $$i & \
	    pids="$$pids $$!"; done; rc=0; for p in $$pids; do wait $$p || rc=1; done; exit $$rc

# RUNS=N of each kind  KINDS="kill redis": with one of these words in the name  SEED=N  SECONDS=N: in all
RUNS ?= 50
KINDS ?=
SEED ?= 1
SECONDS ?= 86400
test-faults: ## Every kind of fault 50 times under streams whose every token is known (an hour)
	@deploy/setup.sh test
	@tests/setup.sh
	@models/fetch.py smollm2-135m >&2
	@$(SUBMAKE) all tools-build >&2
	@$(VENV_PYTHON) -m tests.faults.run --runs $(RUNS) --kinds '$(KINDS)' --seed $(SEED) --seconds $(SECONDS)

# Model files that are right but for a few things: the long form of what make test does for seconds.
EXECUTIONS ?= 10000000
FUZZ_MODELS := model_gguf model_folder gguf safetensors safetensors_index tokenizer_json
.PHONY: fuzz-models
fuzz-models: ## EXECUTIONS=10000000 hostile model files over all their fuzz targets (hours)
	@deploy/setup.sh test
	@$(SUBMAKE) $(FUZZ_MODELS:%=build/fuzz/fuzz_%) >&2
	@set -e; mkdir -p build/fuzz/crashes; for t in $(FUZZ_MODELS:%=fuzz_%); do \
	    mkdir -p build/fuzz/corpus/$$t; \
	    build/fuzz/$$t -runs=$$(($(EXECUTIONS) / $(words $(FUZZ_MODELS)))) -timeout=10 \
	        -rss_limit_mb=2048 -artifact_prefix=build/fuzz/crashes/$$t- -print_final_stats=1 \
	        build/fuzz/corpus/$$t tests/fuzz/corpus/$$t > build/fuzz/$$t.log 2>&1 || \
	        { tail -40 build/fuzz/$$t.log; exit 1; }; \
	    echo "$$t: $$(grep -E 'number_of_executed_units' build/fuzz/$$t.log)"; \
	done

.PHONY: bench-kernels bench-stall bench-engine bench-speculate bench-clients
bench-kernels: ## What each kernel reaches on this machine (minutes)
	@deploy/setup.sh run
	@$(SUBMAKE) build/release/benchmarks/kernels/bench_kernels >&2
	@build/release/benchmarks/kernels/bench_kernels $(shell nproc)

.PHONY: roofline
roofline: ## What a pass costs on A100, H100 and H200 at best, a kernel: bytes, operations, time, the bound
	@$(SUBMAKE) build/release/benchmarks/gpu/roofline >&2
	@build/release/benchmarks/gpu/roofline

# MODELS="smollm2-q4_1 …"  QUICK=1: one run of each, no long prompts  ISA=avx2|avx512: both held to it
# THREADS=N: of each  SHARED=1: one thread, by processor time: for a machine that others use too
MODELS ?=
QUICK ?=
ISA ?=
THREADS ?=
SHARED ?=
empty :=
comma := ,
bench-engine: ## Tokens a second of the engine beside llama.cpp (10 minutes; the first time 30)
	@deploy/setup.sh bench
	@benchmarks/peers/setup.sh
	@$(SUBMAKE) build/release/benchmarks/engine/bench_engine build/release/benchmarks/engine/bench_limits >&2
	@python3 benchmarks/engine/compare.py $(if $(ISA),--isa '$(ISA)') \
	    $(if $(THREADS),--threads '$(THREADS)') $(if $(SHARED),--threads 1 --cpu-time) $(if $(QUICK),--rounds 1 --long-rounds 0) \
	    $(if $(MODELS),--models '$(subst $(empty) $(empty),$(comma),$(strip $(MODELS)))')

# REQUESTS=N, of each run
REQUESTS ?= 64
bench-clients: ## guidellm and aiperf against `argosy up`: any failed request fails it (minutes)
	@deploy/setup.sh test
	@tests/setup.sh
	@benchmarks/clients/setup.sh
	@models/fetch.py smollm2-135m >&2
	@$(SUBMAKE) all >&2
	@$(VENV_PYTHON) benchmarks/clients/load_tools.py $(REQUESTS)

.PHONY: bench-router
# ROUNDS=N  SCENARIOS="json rate burst paced256 paced4000"  PEERS="nginx haproxy …"  OTHER=another argosy-router
# RAISE=1: before what others run here (root)
ROUNDS ?= 3
SCENARIOS ?=
PEERS ?=
OTHER ?=
RAISE ?=
bench-router: ## Our router beside nginx, HAProxy, smg, sglang-router and vllm-router (4 minutes)
	@deploy/setup.sh run
	@benchmarks/router/setup.sh
	@models/fetch.py smollm2-135m >&2
	@$(SUBMAKE) build/release/argosy-router build/release/benchmarks/hash_worker/hash_worker \
	    build/release/benchmarks/router/load build/release/benchmarks/router/http_backend >&2
	@python3 benchmarks/router/compare.py --model models/smollm2-135m/*.gguf --rounds $(ROUNDS) \
	    $(if $(SCENARIOS),--scenarios '$(subst $(empty) $(empty),$(comma),$(strip $(SCENARIOS)))') \
	    $(if $(PEERS),--peers '$(subst $(empty) $(empty),$(comma),$(strip $(PEERS)))') \
	    $(if $(OTHER),--other '$(OTHER)') $(if $(RAISE),--raise-priority)

# LOAD=0.9: of the best goodput of the others, for the other columns  SEED=N  ROUTERS=N
LOAD ?= 0.9
SEED ?= 1
ROUTERS ?= 1
.PHONY: bench-policy
bench-policy: ## Policies and peers' rules over traces and simulated pools; what a decision costs (minutes)
	@deploy/setup.sh run
	@$(SUBMAKE) $(addprefix build/release/benchmarks/policy/,bench_policy bench_decision) >&2
	@build/release/benchmarks/policy/bench_policy benchmarks/policy/traces $(LOAD) $(SEED) $(ROUTERS)
	@build/release/benchmarks/policy/bench_decision

.PHONY: bench-exactness
bench-exactness: ## What the order of sums that NUMERICS.md asks for costs
	@deploy/setup.sh run
	@$(SUBMAKE) build/release/benchmarks/exactness/bench_exactness >&2
	@build/release/benchmarks/exactness/bench_exactness

.PHONY: bench-overload
bench-overload: ## A pool that is asked for ten times what it can serve (2 minutes)
	@deploy/setup.sh run
	@models/fetch.py smollm2-135m >&2
	@$(SUBMAKE) build/release/argosy-router build/release/benchmarks/hash_worker/hash_worker \
	    build/release/benchmarks/overload/flood >&2
	@python3 benchmarks/overload/overload.py

bench-stall: ## What a prompt of 8,000 tokens does to the streams that run
	@deploy/setup.sh run
	@models/fetch.py smollm2-135m >&2
	@$(SUBMAKE) build/release/benchmarks/engine/bench_stall >&2
	@build/release/benchmarks/engine/bench_stall models/smollm2-135m/*.gguf

# THREADS=N: that compute.  LAYERS=N: of the copy that stands for a draft model
LAYERS ?= 8
bench-speculate: ## What guessing tokens ahead gives, by prompt lookup and by a draft model
	@deploy/setup.sh test
	@tests/setup.sh
	@models/fetch.py smollm2-135m >&2
	@$(SUBMAKE) build/release/benchmarks/engine/bench_speculate >&2
	@mkdir -p build/bench
	@$(VENV_PYTHON) benchmarks/engine/first_layers.py models/smollm2-135m/*.gguf $(LAYERS) \
	    build/bench/first_layers.gguf
	@build/release/benchmarks/engine/bench_speculate models/smollm2-135m/*.gguf \
	    build/bench/first_layers.gguf 120 $(THREADS)

OUR_C = $(shell find kernels runtime router tests benchmarks -name '*.[ch]')

check-layering: ## What includes what, banned functions, sizes (ARCHITECTURE.md, CONTRIBUTING.md)
	@python3 tests/layering.py

check-format: ## clang-format, without changing anything
	@clang-format --dry-run -Werror $(OUR_C)

format: ## clang-format, in place
	@clang-format -i $(OUR_C)

check-lint: $(GEN)/proto/cluster.pb-c.h ## clang-tidy (minutes)
	@printf '%s\n' $(filter-out tests/% benchmarks/%,$(filter %.c,$(OUR_C))) | xargs -P$(shell nproc) -n1 sh -c \
	    'clang-tidy --quiet "$$0" -- -std=c17 -D_GNU_SOURCE -I. -I$(GEN) 2>/dev/null || \
	    { echo "clang-tidy: $$0"; exit 1; }'

# The kernels for GPUs, by the real compiler. A spill or local memory is an error.
NVCC_FLAGS := -std=c++17 -I. -O3 --fmad=false --ftz=false --prec-div=true --prec-sqrt=true -lineinfo \
              -Werror all-warnings -Xptxas --warn-on-spills,--warn-on-local-memory-usage
CUBIN := $(foreach a,sm_80 sm_90a,$(CU_SRC:%.cu=build/cuda/$(a)/%.cubin))
define cubin_rule
build/cuda/$(1)/%.cubin: %.cu
	@mkdir -p $$(@D)
	@echo "  nvcc $(1) $$<"
	@$$(NVCC) $$(NVCC_FLAGS) -arch=$(1) -MD -MF $$(@:.cubin=.d) -cubin -o $$@ $$<
endef
$(foreach a,sm_80 sm_90a,$(eval $(call cubin_rule,$(a))))
-include $(CUBIN:.cubin=.d)

.PHONY: check-cuda
check-cuda: $(if $(NVCC),$(CUBIN)) ## Kernels for GPUs compile for sm_80 and sm_90a and have what they say (needs nvcc)
	@$(if $(NVCC),tests/setup.sh && $(VENV_PYTHON) tests/cuda/gates.py $(filter-out %/planted.cubin %/probes.cubin,$(CUBIN)),echo "SKIPPED: there is no nvcc here")

clean: ## Remove what was compiled
	rm -rf $(addprefix build/,release debug asan tsan fuzz gen cuda report)

distclean: ## Remove build/ with the virtual environment and fixtures too
	rm -rf build
