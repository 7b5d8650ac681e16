// Sixty-four neurons at once: one word of spike bits, in registers of the machine's width.
//
// `Lanes` is one register. It has the operators of a float, so the templates of lif.h take it for their T. A `Block` is
// the 64 neurons of a word. GCC keeps vector types in registers where it would put a local array into memory, but only
// where the loops over a block's registers are unrolled, which it has to be told.
#pragma once
#include <cstring>

#include "lif.h"
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace snn {

#if defined(__AVX512F__)
constexpr int kWide = 16;
#elif defined(__AVX__)
constexpr int kWide = 8;
#else
constexpr int kWide = 4;
#endif
constexpr int kLanes = 64;
constexpr int kRegisters = kLanes / kWide;

typedef float FloatVector __attribute__((vector_size(4 * kWide)));
typedef float LooseVector __attribute__((vector_size(4 * kWide), aligned(4), may_alias));  // anywhere in memory
typedef int32_t IntVector __attribute__((vector_size(4 * kWide)));

struct Mask { IntVector m; };

struct Lanes {
  FloatVector x;
  Lanes() = default;
  SNN_BOTH Lanes(float a) : x(a - FloatVector{}) {}
  SNN_BOTH Lanes(FloatVector a) : x(a) {}
  SNN_BOTH static Lanes load(const float* from) { return FloatVector(*reinterpret_cast<const LooseVector*>(from)); }
  SNN_BOTH void store(float* to) const { *reinterpret_cast<LooseVector*>(to) = x; }
};

SNN_BOTH Lanes operator-(Lanes a) { return -a.x; }
SNN_BOTH Lanes operator+(Lanes a, Lanes b) { return a.x + b.x; }
SNN_BOTH Lanes operator-(Lanes a, Lanes b) { return a.x - b.x; }
SNN_BOTH Lanes operator*(Lanes a, Lanes b) { return a.x * b.x; }
SNN_BOTH Lanes operator/(Lanes a, Lanes b) { return a.x / b.x; }
SNN_BOTH Mask operator<(Lanes a, Lanes b) { return {a.x < b.x}; }
SNN_BOTH Mask operator>(Lanes a, Lanes b) { return {a.x > b.x}; }
SNN_BOTH Mask operator<=(Lanes a, Lanes b) { return {a.x <= b.x}; }
SNN_BOTH Mask operator>=(Lanes a, Lanes b) { return {a.x >= b.x}; }
SNN_BOTH Lanes select(Mask m, Lanes a, Lanes b) { return m.m ? a.x : b.x; }

template <> struct Bits<Lanes> : Bits<float> { using Int = IntVector; };  // for power_of_two

// Bit j: a[j] > b[j], or a[j] >= b[j]. Compilers do not find the one instruction for this.
template <bool Equal> SNN_BOTH uint64_t above(Lanes a, Lanes b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)a.x, (__m512)b.x, Equal ? _CMP_GE_OQ : _CMP_GT_OQ);
#elif defined(__AVX__)
  return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps((__m256)a.x, (__m256)b.x, Equal ? _CMP_GE_OQ : _CMP_GT_OQ)));
#elif defined(__SSE2__)
  const __m128 p = (__m128)a.x, q = (__m128)b.x;
  return uint32_t(_mm_movemask_ps(Equal ? _mm_cmpge_ps(p, q) : _mm_cmpgt_ps(p, q)));
#else
  const IntVector m = (Equal ? a.x >= b.x : a.x > b.x) & IntVector{1, 2, 4, 8};
  return uint32_t(m[0] | m[1] | m[2] | m[3]);
#endif
}

// Sum over one register.
SNN_BOTH float total(Lanes a) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)a.x);
#elif defined(__SSE2__)
#if defined(__AVX__)
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128((__m256)a.x), _mm256_extractf128_ps((__m256)a.x, 1));
#else
  __m128 sum = (__m128)a.x;
#endif
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_shuffle_ps(sum, sum, 1)));
#else
  return (a.x[0] + a.x[2]) + (a.x[1] + a.x[3]);
#endif
}

struct Block {
  Lanes v[kRegisters];

  SNN_BOTH static Block all(float a) {
    Block b;
#pragma GCC unroll 16
    for (int i = 0; i < kRegisters; i++) b.v[i] = Lanes(a);
    return b;
  }
  SNN_BOTH static Block load(const float* from) {
    Block b;
#pragma GCC unroll 16
    for (int i = 0; i < kRegisters; i++) b.v[i] = Lanes::load(from + i * kWide);
    return b;
  }
  SNN_BOTH void store(float* to) const {
#pragma GCC unroll 16
    for (int i = 0; i < kRegisters; i++) v[i].store(to + i * kWide);
  }
  // The first n of 64, the others 0.
  SNN_BOTH static Block load(const float* from, int64_t n) {
    if (n == kLanes) return load(from);
    alignas(64) float padded[kLanes] = {};
    std::memcpy(padded, from, n * sizeof(float));
    return load(padded);
  }
  SNN_BOTH void store(float* to, int64_t n) const {
    if (n == kLanes) return store(to);
    alignas(64) float all[kLanes];
    store(all);
    std::memcpy(to, all, n * sizeof(float));
  }
};

SNN_BOTH int first_bit(uint64_t x) { return __builtin_ctzll(x); }
SNN_BOTH int count_bits(uint64_t x) { return __builtin_popcountll(x); }

// Appends the values whose bits are set to a list, and returns its new end. Writes up to kWide values too many.
SNN_BOTH float* compress(const Block& from, uint64_t bits, float* to) {
#if defined(__AVX512F__)
#pragma GCC unroll 16
  for (int i = 0; i < kRegisters; i++) {
    const auto part = __mmask16(bits >> (i * kWide));
    _mm512_storeu_ps(to, _mm512_maskz_compress_ps(part, (__m512)from.v[i].x));
    to += count_bits(part);
  }
  return to;
#else
  alignas(64) float all[kLanes];
  from.store(all);
  const int n = count_bits(bits);
  // Four writes whatever the number: asking "another one?" would be mispredicted once a word.
  for (int i = 0; i < 4; i++, bits &= bits - 1) to[i] = all[first_bit(bits | uint64_t(1) << 63)];
  for (int i = 4; i < n; i++, bits &= bits - 1) to[i] = all[first_bit(bits)];
  return to + n;
#endif
}

// The values of a list in the places of the set bits, 0 elsewhere.
SNN_BOTH Block expand(const float* from, uint64_t bits) {
#if defined(__AVX512F__)
  Block b;
#pragma GCC unroll 16
  for (int i = 0; i < kRegisters; i++) {
    const auto part = __mmask16(bits >> (i * kWide));
    b.v[i] = (FloatVector)_mm512_maskz_expandloadu_ps(part, from);
    from += count_bits(part);
  }
  return b;
#else
  alignas(64) float all[kLanes] = {};
  for (; bits; bits &= bits - 1) all[first_bit(bits)] = *from++;
  return Block::load(all);
#endif
}

// 1 in the places of the set bits, 0 elsewhere.
SNN_BOTH Block ones_at(uint64_t bits) {
  Block b;
#pragma GCC unroll 16
  for (int i = 0; i < kRegisters; i++) {
#if defined(__AVX512F__)
    b.v[i] = (FloatVector)_mm512_maskz_mov_ps(__mmask16(bits >> (i * kWide)), _mm512_set1_ps(1.0f));
#else
    for (int j = 0; j < kWide; j++) b.v[i].x[j] = float(bits >> (i * kWide + j) & 1);
#endif
  }
  return b;
}

}  // namespace snn
