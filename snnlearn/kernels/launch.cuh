// How a kernel is launched, and what every .cu file shares. The tests compile the same files as plain C++ by defining
// these names themselves (tests/cuda_on_cpu.h, which is included before everything else).
#pragma once
#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#pragma nv_diag_suppress 1675  // lif.h has unrolling for GCC, in what only a CPU runs

namespace snn {

// Returns the launch's error, 0 for none; what goes wrong while the kernel runs is reported by a later call.
template <class... P, class... A>
int launch(void (*kernel)(P...), dim3 grid, unsigned threads, void* stream, const A&... arguments) {
  kernel<<<grid, threads, 0, cudaStream_t(stream)>>>(arguments...);
  return int(cudaGetLastError());
}

inline const char* error_name(int code) { return cudaGetErrorName(cudaError_t(code)); }

}  // namespace snn
#endif

#include "lif.h"

namespace snn {

// What was not asked for, or numbers that are no enumerator.
constexpr int kInvalid = 1;  // cudaErrorInvalidValue

// membrane<R, B> and partials<R, B> of lif.h for a bound that is the same for all threads: in one piece, since three
// copies of it for each unrolled step would take the compiler most of its time.
template <Reset R, class T> SNN_BOTH T membrane_of(Bound b, T U, T s, T I, const Constants<T>& k, T low) {
  const bool before = b == Bound::BeforeInput;
  const T left = unbounded<R>(U, s, before ? T(0) : I, k), least = before ? k.beta * low : low;
  const T kept = select(b != Bound::None && left < least, least, left);
  return before ? kept + I : kept;
}

template <Reset R, class T> SNN_BOTH Partials<T> partials_of(Bound b, T U, T s, T I, const Constants<T>& k, T low) {
  Partials<T> d = unbounded_partials<R>(U, s, I, k);
  if (b == Bound::None) return d;
  const bool before = b == Bound::BeforeInput;
  const T value = unbounded<R>(U, s, before ? T(0) : I, k), least = before ? k.beta * low : low;
  const T tie = before ? T(0.5) : T(1), open = select(value > least, T(1), select(value < least, T(0), tie));
  d.U = d.U * open;
  d.s = d.s * open;
  d.beta = d.beta * open + (before ? (T(1) - open) * low : T(0));
  d.theta = d.theta * open;
  if (!before) d.I = d.I * open;
  return d;
}

template <class T> SNN_BOTH T fire_of(Fire f, T U, T theta, T most) {
  if (f == Fire::Reach) return fire<Fire::Reach>(U, theta, most);
  if (f == Fire::Exceed) return fire<Fire::Exceed>(U, theta, most);
  if (f == Fire::Count) return fire<Fire::Count>(U, theta, most);
  return U;
}

// Several slopes at once, so that the choice of the shape is made once.
template <Slope S, int n, class T> SNN_BOTH void slopes(const T (&x)[n], const Surrogate<T>& shape, T (&f)[n]) {
#pragma unroll
  for (int j = 0; j < n; j++) f[j] = slope_at<S>(x[j], shape);
}

template <int n, class T> SNN_BOTH void slopes_of(const T (&x)[n], Slope slope, const Surrogate<T>& shape, T (&f)[n]) {
  switch (slope) {
    case Slope::PiecewiseLinear: return slopes<Slope::PiecewiseLinear>(x, shape, f);
    case Slope::FastSigmoid: return slopes<Slope::FastSigmoid>(x, shape, f);
    case Slope::Exponential: return slopes<Slope::Exponential>(x, shape, f);
    case Slope::Boxcar: return slopes<Slope::Boxcar>(x, shape, f);
    case Slope::Sigmoid: return slopes<Slope::Sigmoid>(x, shape, f);
    case Slope::ArcTan: return slopes<Slope::ArcTan>(x, shape, f);
    case Slope::Gaussian: return slopes<Slope::Gaussian>(x, shape, f);
    default: return slopes<Slope::Straight>(x, shape, f);
  }
}

// Calls make(tag) with the reset as a constant, tag.value; kInvalid for a number that is no reset.
template <Reset R> struct ResetTag { static constexpr Reset value = R; };

template <class Make> int with_reset(int reset, Make make) {
  switch (Reset(reset)) {
    case Reset::Subtract: return make(ResetTag<Reset::Subtract>{});
    case Reset::SubtractDecayed: return make(ResetTag<Reset::SubtractDecayed>{});
    case Reset::ToZero: return make(ResetTag<Reset::ToZero>{});
    case Reset::ToZeroWithInput: return make(ResetTag<Reset::ToZeroWithInput>{});
    case Reset::None: return make(ResetTag<Reset::None>{});
  }
  return kInvalid;
}

}  // namespace snn
