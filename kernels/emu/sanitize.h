/* What the sanitizers must be told; nothing without them. AddressSanitizer: which stack runs, and which bytes
 * of a block's arena belong to no object. ThreadSanitizer (QD_EMU_TSAN): every CUDA thread is a thread of its
 * own; barriers, __syncwarp and fences order them, shuffles and mma do not. The emulator itself is compiled
 * without it and reports what instructions touch. */
#ifndef QD_KERNELS_EMU_SANITIZE_H
#define QD_KERNELS_EMU_SANITIZE_H

#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__)
#define QD_EMU_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define QD_EMU_ASAN 1
#endif
#endif

/* Bytes that no object owns, and the way back. */
#ifdef QD_EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define qd_emu_hide(p, bytes) ASAN_POISON_MEMORY_REGION(p, bytes)
#define qd_emu_show(p, bytes) ASAN_UNPOISON_MEMORY_REGION(p, bytes)
#else
#define qd_emu_hide(p, bytes) ((void)(p), (void)(bytes))
#define qd_emu_show(p, bytes) ((void)(p), (void)(bytes))
#endif

/* What comes after order_after(object) comes after everything before order_before(object) on other threads.
 * The running CUDA thread reads or writes the bytes that it touches. */
#ifdef QD_EMU_TSAN
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void *fiber);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
void __tsan_acquire(void *object);
void __tsan_release(void *object);
void __tsan_read_range(void *p, unsigned long bytes);
void __tsan_write_range(void *p, unsigned long bytes);
/* Around the emulator's own use of the heap, which ThreadSanitizer watches on whatever fiber runs. */
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
enum { QD_EMU_TSAN_NO_ORDER = 1 }; /* a switch that orders nothing */
#define qd_emu_order_after(object)   __tsan_acquire(object)
#define qd_emu_order_before(object)  __tsan_release(object)
#define qd_emu_touch_read(p, bytes)  __tsan_read_range((void *)(size_t)(p), bytes)
#define qd_emu_touch_write(p, bytes) __tsan_write_range(p, bytes)
#else
#define qd_emu_order_after(object)            ((void)(object))
#define qd_emu_order_before(object)           ((void)(object))
#define qd_emu_touch_read(p, bytes)           ((void)(p), (void)(bytes))
#define qd_emu_touch_write(p, bytes)          ((void)(p), (void)(bytes))
#define AnnotateIgnoreWritesBegin(file, line) ((void)0)
#define AnnotateIgnoreWritesEnd(file, line)   ((void)0)
#endif

#endif
