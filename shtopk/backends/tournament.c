/* The tournament of successive halving for scores on a CPU, one row after the other: what tournament.py says in tensors,
   without the cost of hundreds of small tensor operations. Opened by native.py; nothing of Python is needed here. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#elif defined(__GNUC__)
#define EXPORT __attribute__((visibility("default")))
#else
#define EXPORT
#endif

#ifdef __GNUC__ /* or Clang */
#define PREFETCH(address) __builtin_prefetch(address)
#else
#define PREFETCH(address)
#endif

EXPORT void *PyInit__tournament(void) /* the linker asks for it on Windows; this is no module to import */
{
    return NULL;
}

/* native.py takes this one alone. To be raised with whatever changes what a function takes or computes. */
EXPORT int version(void)
{
    return 7;
}

#if defined(__GNUC__) && defined(__x86_64__) && defined(__gnu_linux__) /* for wider registers, where there are some */
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

/* A wide register that somebody left in use, as torch does in threads that it lends, slows all code that has none. So
   whatever has no CLONES begins with this. It changes no number. */
static inline void clean_registers(void)
{
#if defined(__GNUC__) && defined(__x86_64__)
    if (__builtin_cpu_supports("avx"))
        __asm__ volatile("vzeroupper" ::: "memory");
#endif
}

/* Write 64 bytes to an address that is a multiple of 64, past the caches, which pays for so many bytes of a thread. */
#if defined(__GNUC__) && defined(__x86_64__)
#include <emmintrin.h>
#define STREAMS 1
static inline void stream(void *to, const void *from)
{
    for (int part = 0; part < 4; part++)
        _mm_stream_si128((__m128i *)to + part, _mm_loadu_si128((const __m128i *)from + part));
}
#define STREAMED() _mm_sfence()
#else
#define STREAMS 0
static inline void stream(void *to, const void *from)
{
    memcpy(to, from, 64);
}
#define STREAMED() ((void)0)
#endif
#define LARGE (4 << 20)

#ifdef __GNUC__
#define ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define ALWAYS_INLINE inline
#endif

/* bfloat16: the upper half of a float. */
static inline float from_bfloat16(uint16_t x)
{
    const uint32_t bits = (uint32_t)x << 16;
    float real;
    memcpy(&real, &bits, sizeof real);
    return real;
}

static inline uint16_t to_bfloat16(float real) /* the nearest one, of two the even one */
{
    uint32_t bits;
    memcpy(&bits, &real, sizeof bits);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded; /* what is not a number stays that */
}

#define SMALLEST_SPREAD 1e-6 /* as in tournament.py */

#define REAL float
#define KEY uint32_t
#define INDEX int32_t
#define NAME(x) x##_float
#define EXP expf
#define REAL_MAX FLT_MAX
#define REAL_MIN FLT_MIN
#define REAL_EPSILON FLT_EPSILON
#define REAL_DIGITS FLT_MANT_DIG
#include "margin.h"
#include "tournament.h"
#include "clusters.h"
#define OF_REAL(x) x##_float
#define VALUE REAL
#define POOL_CLONES /* wider registers gain nothing here: memory is what takes time */
#define LOAD(x) (x)
#define STORE(x) (x)
#include "pool.h"
#include "partition.h"
#undef NAME
#undef VALUE
#undef POOL_CLONES
#undef LOAD
#undef STORE

#define NAME(x) x##_bfloat16
#define VALUE uint16_t
#define POOL_CLONES CLONES
#define LOAD(x) from_bfloat16(x)
#define STORE(x) to_bfloat16(x)
#include "pool.h"
#include "partition.h"
#undef NAME
#undef VALUE
#undef POOL_CLONES
#undef LOAD
#undef STORE

#undef OF_REAL
#undef REAL
#undef KEY
#undef INDEX
#undef EXP
#undef REAL_MAX
#undef REAL_MIN
#undef REAL_EPSILON
#undef REAL_DIGITS

#define REAL double
#define KEY uint64_t
#define INDEX int64_t
#define NAME(x) x##_double
#define EXP exp
#define REAL_MAX DBL_MAX
#define REAL_MIN DBL_MIN
#define REAL_EPSILON DBL_EPSILON
#define REAL_DIGITS DBL_MANT_DIG
#include "margin.h"
#include "tournament.h"
#include "clusters.h"
#define OF_REAL(x) x##_double
#define VALUE REAL
#define POOL_CLONES
#define LOAD(x) (x)
#define STORE(x) (x)
#include "pool.h"
#include "partition.h"
