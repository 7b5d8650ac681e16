// What C++ has no word for: stores that bypass the cache, and denormal numbers. Each with a plain fallback.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace snn {

// Copies n numbers without first reading the destination into the cache, which halves the traffic of a result that is
// larger than the cache. Follow the last one by stream_fence().
template <class T> inline void stream_copy(T* to, const T* from, int64_t n) {
#if defined(__SSE2__)
#if defined(__AVX512F__)
  constexpr int64_t width = 64;
#elif defined(__AVX__)
  constexpr int64_t width = 32;
#else
  constexpr int64_t width = 16;
#endif
  constexpr int64_t lanes = width / sizeof(T);
  const int64_t head = int64_t((-reinterpret_cast<uintptr_t>(to)) % width / sizeof(T));
  int64_t j = head < n ? head : n;
  std::memcpy(to, from, j * sizeof(T));
  for (; j + lanes <= n; j += lanes) {
#if defined(__AVX512F__)
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + j), _mm512_loadu_si512(from + j));
#elif defined(__AVX__)
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + j), _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + j)));
#else
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + j), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + j)));
#endif
  }
  std::memcpy(to + j, from + j, (n - j) * sizeof(T));
#else
  std::memcpy(to, from, n * sizeof(T));
#endif
}

inline void stream_fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// Numbers too small for a full mantissa slow a processor down up to twofold. They count as zero in this thread until
// the end of the scope.
class FlushDenormals {
 public:
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;
#if defined(__SSE2__)
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(before_ | (uint64_t(1) << 24)));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" : : "r"(before_)); }

 private:
  uint64_t before_;
#else
  FlushDenormals() {}
#endif
};

}  // namespace snn
