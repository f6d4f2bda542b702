# The device `cuda` as a shared object, and the kernel tests on a GPU. Included by the Makefile; nothing else needs nvcc.
# make CUDA_HOME=DIR: the toolkit to build with, and no other (else: the environment's CUDA_HOME, PATH, /usr/local/cuda);
# CUARCH="80 90" which GPUs get code of their own (all: every one since sm_80 that nvcc knows). PTX for sm_80 is always
# there, for those that come later.

CUARCH      ?= 80 90
NVCC        := $(wildcard $(CUDA_HOME)/bin/nvcc)
ifneq ($(origin CUDA_HOME),command line)
NVCC        := $(firstword $(NVCC) $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
endif
CUDA_ROOT   = $(abspath $(dir $(realpath $(NVCC)))..)
# NVIDIA's own folders, then those of distributions' packages.
CUDA_LIBDIR = $(firstword $(dir $(wildcard $(foreach dir,lib64 lib targets/x86_64-linux/lib lib/x86_64-linux-gnu,$(CUDA_ROOT)/$(dir)/libcudart_static.a))))
# The shared object needs no C++ library, and is linked by $(CC).
NVCC_HOST   := -fPIC,-fvisibility=hidden,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics,-Wall
CUARCHS     = $(if $(filter all,$(CUARCH)),$(shell $(NVCC) --list-gpu-arch | sed -n 's/^compute_//p' | awk '$$1 >= 80'),$(CUARCH))
NVCCFLAGS   = -std=c++17 -O3 -lineinfo -I. -Werror all-warnings -Xcompiler $(NVCC_HOST) -Xfatbin -compress-all \
              $(foreach arch,$(CUARCHS),-gencode arch=compute_$(arch),code=sm_$(arch)) -gencode arch=compute_80,code=compute_80
CUDA_CFLAGS := -std=c11 -O2 -g -ffp-contract=off -fno-strict-aliasing $(filter-out -Werror,$(WARN)) -Werror -fPIC -fvisibility=hidden

CUDA_BUILD   := $(BUILD)/cuda
CUDA_LIBRARY := $(BUILD)/libqdyno_cuda.so
CUDA_OBJECTS := $(patsubst %,$(CUDA_BUILD)/%.o,$(CUDA_SOURCES) $(sort $(wildcard kernels/cuda/*.c)) kernels/base/status.c kernels/base/clock.c kernels/library.c kernels/step.c)
# What goes into the archive has code for more GPUs: an object of its own, in a folder of its own.
PORTABLE        := build/portable
PORTABLE_CUARCH := $(if $(filter command line,$(origin CUARCH)),$(CUARCH),80 86 89 90)
# The tests compare with the specification and make their inputs with the random numbers of kernels/base.
GPU_TEST_OBJECTS := $(filter-out $(CUDA_OBJECTS),$(patsubst %,$(CUDA_BUILD)/%.o,$(wildcard kernels/ref/*.c kernels/base/*.c) \
                    $(filter %.c %.cc,$(GPU_SUPPORT)) $(wildcard tests/gpu/*.cu)))
GPU_TEST_BINARIES := $(GPU_TESTS:$(BUILD)/%=$(CUDA_BUILD)/%)

.PHONY: cuda portable gpu-test gpu-test-binaries gates need-nvcc

portable: setup ## one archive for a GPU machine without a toolchain (CUDA_HOME=DIR: of that toolkit)
	$(Q)$(SUBMAKE) $(BINARY)
ifeq ($(NVCC)$(if $(filter command,$(origin CUDA_HOME)),$(CUDA_HOME)),)
	$(Q)tools/portable.sh $(BINARY) build
else
	$(Q)$(MAKE) --no-print-directory need-nvcc
	$(Q)$(SUBMAKE) BUILD=$(PORTABLE) CUARCH="$(PORTABLE_CUARCH)" $(PORTABLE)/libqdyno_cuda.so
	$(Q)tools/portable.sh $(BINARY) build $(PORTABLE)/libqdyno_cuda.so $(CUDA_ROOT) "$(PORTABLE_CUARCH)"
endif

cuda: need-nvcc ## build build/libqdyno_cuda.so, the device cuda (needs nvcc)
	$(Q)$(SUBMAKE) build/libqdyno_cuda.so

gpu-test: ## the kernel tests, then the golden models, on this machine's GPU (REQUIRE_CUDA=1: no skipping)
	$(Q)NVCC="$(NVCC)" BUILD=$(BUILD) MAKE="$(SUBMAKE)" tools/gpu-test.sh $(GPU_TEST_BINARIES)

gpu-test-binaries: need-nvcc $(GPU_TEST_BINARIES)

gates: ## what is known of the CUDA kernels without running them (UPDATE=1: writes their table anew)
	$(Q)NVCC="$(NVCC)" BUILD=$(BUILD) tools/run-tests.sh tests/gates/cuda.sh

need-nvcc:
	$(Q)[ -n "$(NVCC)" ] || { echo "make: the device cuda needs nvcc: it is not in $(if $(filter command line,$(origin CUDA_HOME)),$(CUDA_HOME)/bin,PATH nor in /usr/local/cuda/bin) (CUDA_HOME)" >&2; exit 3; }

# Beside the binary, which is where it is looked for.
build/libqdyno_cuda.so: $(CUDA_LIBRARY) FORCE
	$(Q)ln -sfn $(CONFIG)/libqdyno_cuda.so $@

$(CUDA_LIBRARY): $(CUDA_OBJECTS)
	$(Q)[ -n "$(CUDA_LIBDIR)" ] || { echo "make: no libcudart_static.a in $(CUDA_ROOT): the device cuda needs the CUDA runtime's static library" >&2; exit 3; }
	@$(if $(V),,echo "  LD $@")
	$(Q)$(CC) -shared -o $@ $^ -L$(CUDA_LIBDIR) -lcudart_static -Wl,--exclude-libs=ALL,-Bsymbolic,-z,defs -ldl -lrt -lm

$(GPU_TEST_BINARIES): $(CUDA_BUILD)/%: $(CUDA_BUILD)/%.c.o $(GPU_TEST_OBJECTS) $(CUDA_OBJECTS)
	@$(if $(V),,echo "  LD $@")
	$(Q)$(NVCC) -cudart static -o $@ $^ -lm

# The version of nvcc and the GPUs are part of what an object is made of.
$(CUDA_BUILD)/flags: FORCE
	$(Q)mkdir -p $(@D)
	$(Q)echo "$(realpath $(NVCC)) $(NVCCFLAGS)" | cmp -s - $@ || echo "$(realpath $(NVCC)) $(NVCCFLAGS)" >$@

$(CUDA_BUILD)/%.cu.o: %.cu $(CUDA_BUILD)/flags
	@$(if $(V),,echo "  NVCC $@")
	$(Q)mkdir -p $(@D)
	$(Q)$(NVCC) $(NVCCFLAGS) -MMD -MP -c -o $@ $<

$(CUDA_BUILD)/%.cc.o: %.cc $(CUDA_BUILD)/flags
	@$(if $(V),,echo "  NVCC $@")
	$(Q)mkdir -p $(@D)
	$(Q)$(NVCC) $(NVCCFLAGS) -MMD -MP -c -o $@ $<

$(CUDA_BUILD)/kernels/cuda/device.c.o: CUDA_CFLAGS += -DQD_CUDA_ARCHITECTURES='"$(CUARCHS)"'
$(CUDA_BUILD)/%.c.o: %.c $(CUDA_BUILD)/flags
	@$(if $(V),,echo "  CC $@")
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -I. -D_GNU_SOURCE -isystem $(dir $(realpath $(NVCC)))../include $(CUDA_CFLAGS) -MMD -MP -c -o $@ $<

# What nvcc makes of each kernel, for the emulator's PTX front end.
PTX         := $(BUILD)/ptx
PTX_MODULES := $(patsubst %.cu,$(PTX)/%.ptx,$(notdir $(CUDA_SOURCES) $(wildcard tests/gpu/*.cu)))

.PHONY: ptx ptx-test

ptx: need-nvcc $(PTX_MODULES)

# But for NCCL, whose kernels are not nvcc's.
ptx-test: ## the kernel tests in the emulator, running nvcc's PTX instead of the sources
ifeq ($(NVCC),)
	$(Q)echo "skip: ptx-test: no nvcc in PATH or CUDA_HOME"; echo "0 passed, 0 failed, 1 skipped"
else
	$(Q)$(SUBMAKE) ptx $(GPU_TESTS)
	$(Q)BUILD=$(BUILD) TEST_ARGS="--ptx $(PTX)" tools/run-tests.sh $(filter-out %/nccl,$(GPU_TESTS))
endif

define compile_ptx
	@$(if $(V),,echo "  PTX $@")
	$(Q)mkdir -p $(@D)
	$(Q)$(NVCC) -ptx -arch=compute_80 -std=c++17 -O3 -I. -MMD -MP -MF $(@:.ptx=.d) -MT $@ -o $@ $<
endef

$(PTX)/%.ptx: kernels/cuda/%.cu $(CUDA_BUILD)/flags
	$(compile_ptx)
$(PTX)/%.ptx: tests/gpu/%.cu $(CUDA_BUILD)/flags
	$(compile_ptx)
$(PTX)/emu/%.ptx: tests/emu/%.cu $(CUDA_BUILD)/flags
	$(compile_ptx)

ifneq ($(NVCC),)
$(BUILD)/tests/emu/ptx_kernels: | $(PTX)/emu/ptx_planted.ptx
$(BUILD)/tests/emu/planted: | $(PTX)/emu/planted.ptx
ifeq ($(SAN),)
$(BUILD)/tests/gpu/traffic: | $(PTX_MODULES)
endif
endif
