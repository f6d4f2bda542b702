# qdyno: `make run` and `make test` are each enough on a fresh machine; `make help` lists the rest.
# Switches: DEBUG=1, SAN=address,undefined | thread, WERROR=1, V=1, CC=clang; each has its own build folder.

ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := $(if $(findstring clang,$(CC)),clang++,g++)
endif
comma  := ,
CONFIG := $(if $(DEBUG),debug,release)$(if $(SAN),-$(subst $(comma),-,$(SAN)))$(if $(filter-out gcc,$(CC)),-$(CC))
BUILD  := build/$(CONFIG)
Q      := $(if $(V),,@)

WARN    := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes $(if $(WERROR),-Werror)
CPPFLAGS += -I. -I$(BUILD) -D_GNU_SOURCE
CFLAGS  := -std=c11 $(if $(DEBUG),-O1,-O2) -g -ffp-contract=off -fno-strict-aliasing $(WARN) $(CFLAGS)
CFLAGS  += $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)
# CUDA sources are C++ that needs no C++ library: $(CC) links them.
CXXWARN := -Wall -Wextra -Wno-unknown-pragmas -Wno-psabi -Wno-pass-failed $(if $(WERROR),-Werror)
CXXFLAGS := -x c++ -std=c++17 -fno-exceptions -fno-rtti -fno-threadsafe-statics $(filter-out -std=c11 $(WARN),$(CFLAGS)) $(CXXWARN) $(if $(SAN),-O1,-fstack-clash-protection) $(CXXFLAGS)
LDFLAGS += -pthread $(if $(SAN),-fsanitize=$(SAN))
LDLIBS  := -ldl -lcjson -lpcre2-8 -lutf8proc -lm

# Every .c of the rooms goes into one library; kernels/cpu/*.c are compiled once per instruction set, and the
# one to use is chosen at run time. Nothing is compiled for the build machine's own processor.
ISAS           := portable avx2
ISA_portable   := -Wno-psabi
ISA_avx2       := -mavx2 -mfma -mf16c
ISA_SOURCES    := $(wildcard kernels/cpu/*.c)
SOURCES        := $(filter-out $(ISA_SOURCES) harness/cli/main.c,$(sort $(wildcard kernels/*.c kernels/*/*.c kernels/*/*/*.c models/*.c harness/*/*.c)))
OBJECTS        := $(SOURCES:%.c=$(BUILD)/%.o) $(foreach isa,$(ISAS),$(ISA_SOURCES:%.c=$(BUILD)/%.$(isa).o))
CUDA_SOURCES   := $(sort $(wildcard kernels/cuda/*.cu))
OBJECTS        += $(CUDA_SOURCES:%=$(BUILD)/%.o)
LIB            := $(BUILD)/libqdyno.a
BINARY         := $(BUILD)/qdyno

TEST_SUPPORT   := $(BUILD)/libsupport.a
TEST_SOURCES   := $(sort $(wildcard tests/base/*.c tests/emu/*.c tests/kernels/*.c tests/models/*.c tests/harness/*.c tests/golden/*.c))
TESTS          := $(TEST_SOURCES:%.c=$(BUILD)/%)
# Shared objects that take the place of NVIDIA's libraries: tests find them as the program finds the real ones.
FAKES          := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/fakes/*.c))
EMU_TEST_CUDA  := $(patsubst %,$(BUILD)/%.o,$(wildcard tests/emu/*.cu))
GPU_SUPPORT    := $(wildcard tests/gpu/runner* tests/gpu/*_rig.c)
GPU_TESTS      := $(patsubst %.c,$(BUILD)/%,$(filter-out $(GPU_SUPPORT),$(sort $(wildcard tests/gpu/*.c))))
GPU_RUNNER     := $(patsubst %,$(BUILD)/%.o,$(filter %.cc,$(GPU_SUPPORT)) $(wildcard tests/gpu/*.cu)) $(patsubst %.c,$(BUILD)/%.o,$(filter %.c,$(GPU_SUPPORT)))
E2E_TESTS      := $(filter-out tests/e2e/lib.sh,$(sort $(wildcard tests/e2e/*.sh)))
E2E_TOOLS      := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/e2e/*.c))
FUZZ_SOURCES   := $(filter-out tests/fuzz/driver.c,$(wildcard tests/fuzz/*.c))
FUZZ_REPLAYS   := $(FUZZ_SOURCES:%.c=$(BUILD)/%)
# What kernel tests reach: a sanitizer's build of them need not wait for the rest.
KERNELS        := $(BUILD)/libkernels.a
KERNEL_OBJECTS := $(filter $(BUILD)/kernels/%,$(filter-out $(BUILD)/kernels/cpu/%,$(OBJECTS)))
# What fuzz targets reach: readers of files. The kernels stay out, which clang's sanitizers are very slow to compile.
PARSERS        := $(BUILD)/libparsers.a
PARSER_OBJECTS := $(patsubst %.c,$(BUILD)/%.o,$(filter kernels/base/% kernels/step% models/% harness/engine/replay_load.c harness/result/% harness/report/% harness/workload/% kernels/nvml% kernels/library%,$(SOURCES)))
BENCHES        := $(patsubst %.c,$(BUILD)/%,$(wildcard bench/*.c))

# All cores, unless the user said otherwise.
SUBMAKE = $(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

.PHONY: all help run test check soak emu-soak bench format clean setup setup-test setup-check tests FORCE
.DEFAULT_GOAL := all
.SECONDARY:

all: setup ## build build/qdyno
	$(Q)$(SUBMAKE) build/qdyno

# Linked anew each time: it then is of this configuration, whatever was built before.
build/qdyno: $(BINARY) FORCE
	$(Q)ln -sfn $(CONFIG)/qdyno $@

run: all ## sweep the tiny model and print the report (FULL=1: all prompts)
	$(Q)tools/first-run.sh $(if $(FULL),--full)

test: setup-test ## build and run every test
	$(Q)$(SUBMAKE) tests
	$(Q)BUILD=$(BUILD) QDYNO=$(BINARY) tools/run-tests.sh $(TESTS) $(GPU_TESTS) $(E2E_TESTS) -- $(FUZZ_REPLAYS)

tests: $(BINARY) $(TESTS) $(GPU_TESTS) $(E2E_TOOLS) $(FUZZ_REPLAYS)

check: setup-check ## the tests under sanitizers, fuzzers for 30 s each
	$(Q)tools/check.sh

soak: setup-check ## what is too long for check: fuzzers for 10 minutes each
	$(Q)FUZZ_SECONDS=600 tools/check.sh

emu-soak: setup-test ## the kernel tests in the emulator under SEEDS=N random schedules
	$(Q)$(SUBMAKE) $(GPU_TESTS)
	$(Q)BUILD=$(BUILD) QD_GPU_SEEDS=$(or $(SEEDS),100) tools/run-tests.sh $(GPU_TESTS)

bench: setup ## speed of this machine's kernels against its probed limits
	$(Q)$(SUBMAKE) build/qdyno $(BENCHES)
	$(Q)BUILD=$(BUILD) tools/bench.sh

format: ## clang-format every source file
	$(Q)git ls-files '*.c' '*.h' '*.cu' '*.cuh' '*.cc' | xargs clang-format -i

clean: ## remove build/
	$(Q)rm -rf build

setup:
	$(Q)tools/setup.sh build
setup-test:
	$(Q)tools/setup.sh test
setup-check:
	$(Q)tools/setup.sh check

help: ## this list
	$(Q)grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  make %-8s %s\n", $$1, $$2}'
	$(Q)if [ -x build/qdyno ]; then build/qdyno --version; else echo "  (devices of this build: run make first)"; fi

$(BUILD)/commit.h: FORCE
	$(Q)mkdir -p $(@D)
	$(Q)printf '#define QD_COMMIT "%s"\n' "$$(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)" >$@.new
	$(Q)cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# Presets and machine profiles travel inside the binary: one C string a file.
PRESETS  := Qwen3-0.6B Qwen3-1.7B Qwen3-4B Qwen3-8B Qwen3-14B Qwen3-32B micro
MACHINES := H100-SXM A100-80G L40S RTX-4090
define strings
	$(Q)mkdir -p $(@D)
	$(Q)for name in $(1); do printf '{"%s",\n' $$name; sed 's/[\\"]/\\&/g; s/.*/"&\\n"/' $(2)/$$name.json; echo '},'; done >$@.new && mv $@.new $@
endef
$(BUILD)/presets.inc: $(PRESETS:%=models/presets/%.json) Makefile
	$(call strings,$(PRESETS),models/presets)
$(BUILD)/machines.inc: $(MACHINES:%=bench/machines/%.json) Makefile
	$(call strings,$(MACHINES),bench/machines)
$(BUILD)/models/presets.o: $(BUILD)/presets.inc
$(BUILD)/harness/ops/machine.o: $(BUILD)/machines.inc

define compile
	@$(if $(V),,echo "  CC $@")
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(1) -MMD -MP -c -o $@ $<
endef

define isa_rule
$(BUILD)/kernels/cpu/%.$(1).o: kernels/cpu/%.c
	$$(call compile,$(if $(SAN),-O1,-O3) -DQD_CPU_ISA=$(1) $$(ISA_$(1)))
endef
$(foreach isa,$(ISAS),$(eval $(call isa_rule,$(isa))))

$(BUILD)/harness/cli/version.o: $(BUILD)/commit.h
$(BUILD)/%.o: %.c
	$(call compile)

# Compares what is declared of NVIDIA's libraries with their headers, where those are.
$(BUILD)/tests/kernels/library_real.o: CPPFLAGS += $(patsubst %,-isystem %,$(wildcard $(CUDA_HOME)/include))

# The emulator in the place of CUDA. Under ThreadSanitizer it is not watched itself: it tells what CUDA threads do.
EMU := -Ikernels/emu/shim -DQD_EMU
$(BUILD)/kernels/cuda/%.o $(BUILD)/tests/emu/%.o $(BUILD)/tests/gpu/%.o $(BUILD)/tests/kernels/cuda_%.o: CPPFLAGS += $(EMU)
ifneq ($(findstring thread,$(SAN)),)
$(BUILD)/kernels/emu/%.o $(BUILD)/kernels/emu_nccl/%.o: CFLAGS += -fno-sanitize=thread -fno-builtin
$(BUILD)/kernels/emu/%.o $(BUILD)/tests/emu/%.o: CPPFLAGS += -DQD_EMU_TSAN
endif

define compile_cuda
	@$(if $(V),,echo "  CXX $@")
	$(Q)mkdir -p $(@D)
	$(Q)$(CXX) $(CPPFLAGS) $(CXXFLAGS) -MMD -MP -c -o $@ $<
endef

$(BUILD)/%.cu.o: %.cu
	$(compile_cuda)
$(BUILD)/%.cc.o: %.cc
	$(compile_cuda)

$(LIB): $(OBJECTS)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(KERNELS): $(KERNEL_OBJECTS)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(PARSERS): $(PARSER_OBJECTS)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BINARY): $(BUILD)/harness/cli/main.o $(LIB)
	@$(if $(V),,echo "  LD $@")
	$(Q)$(CC) $(LDFLAGS) -Wl,-rpath,'$$ORIGIN/lib' -o $@ $^ $(LDLIBS)

$(TEST_SUPPORT): $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/support/*.c))
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(filter-out $(BUILD)/tests/emu/%,$(TESTS)): $(BUILD)/%: $(BUILD)/%.o $(TEST_SUPPORT) $(LIB)
	@$(if $(V),,echo "  LD $@")
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

$(TESTS): | $(FAKES)
$(FAKES): $(BUILD)/%: %.c
	@$(if $(V),,echo "  LD $@")
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -fPIC -shared -MMD -MP -o $@ $<

# -rdynamic: the PTX front end asks for the names of kernels.
$(filter $(BUILD)/tests/emu/%,$(TESTS)): $(BUILD)/%: $(BUILD)/%.o $(EMU_TEST_CUDA) $(KERNELS)
	@$(if $(V),,echo "  LD $@")
	$(Q)$(CC) $(LDFLAGS) -rdynamic -o $@ $^ $(LDLIBS) -lcmocka

# Kernel tests: the same sources that `make gpu-test` builds with nvcc, here with the emulated kernels.
$(GPU_TESTS): $(BUILD)/%: $(BUILD)/%.o $(GPU_RUNNER) $(KERNELS)
	@$(if $(V),,echo "  LD $@")
	$(Q)$(CC) $(LDFLAGS) -rdynamic -o $@ $^ $(LDLIBS)

# Fuzz targets linked with a driver that replays files; tools/check.sh links them with libFuzzer instead.
$(FUZZ_REPLAYS): $(BUILD)/%: $(BUILD)/%.o $(BUILD)/tests/fuzz/driver.o $(LIB)
	@$(if $(V),,echo "  LD $@")
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(E2E_TOOLS): $(BUILD)/%: $(BUILD)/%.o $(LIB)
	@$(if $(V),,echo "  LD $@")
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter-out $(LIB),$^) $(LIB) $(LDLIBS)
# The program itself, with a fault in it.
$(BUILD)/tests/e2e/faulty: $(BUILD)/harness/cli/main.o

$(BENCHES): $(BUILD)/%: $(BUILD)/%.o $(LIB)
	@$(if $(V),,echo "  LD $@")
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

include kernels/cuda/build.mk

FORCE:

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
