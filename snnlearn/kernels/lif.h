// One neuron at one step, forward and backward: the arithmetic of snnlearn/neurons.py, resets.py, surrogate.py and
// temporal/, once more, for host and device.
//
//   I[n] = alpha * I[n-1] + a[n]        U[n] = membrane(U[n-1], s[n-1], I[n])        s[n] = fire(U[n])
//   lam[n] = f[n] * e[n] + c[n] * lam[n+1]      dL/dU
//   kap[n] = p[n] * e[n] + q[n] * lam[n] + alpha * kap[n+1]      dL/da
//
// T is float, double, or a vector of them (vector.h). The operations stand in the order in which torch does them, and
// nothing may be contracted to a fused multiply-add (-ffp-contract=off, --fmad=false): spikes are then those of the
// reference, to the last bit.
#pragma once
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define SNN_BOTH __host__ __device__ __forceinline__
#else
#define SNN_BOTH inline __attribute__((always_inline))
#endif

namespace snn {

// The numbers behind the enumerators are those of snnlearn/kernels/codes.py.
enum class Reset : int { Subtract, SubtractDecayed, ToZero, ToZeroWithInput, None };
enum class Bound : int { None, BeforeInput, AfterInput };
enum class Fire : int { Reach, Exceed, Count, Analog };
enum class Slope : int { PiecewiseLinear, FastSigmoid, Exponential, Boxcar, Sigmoid, ArcTan, Gaussian, Straight };
enum class Seen : int { Kept, Detached, Ignored };  // of the reset, by the gradient

template <class T> struct Constants { T alpha, beta, theta; };

// a where m, b elsewhere. vector.h has the same for vectors.
SNN_BOTH float select(bool m, float a, float b) { return m ? a : b; }
SNN_BOTH double select(bool m, double a, double b) { return m ? a : b; }

template <class T> SNN_BOTH T absolute(T x) { return select(x < T(0), -x, x); }

// What is left of the membrane and the input, before a bound.
template <Reset R, class T> SNN_BOTH T unbounded(T U, T s, T I, const Constants<T>& k) {
  if constexpr (R == Reset::Subtract) return (k.beta * U - k.theta * s) + I;
  else if constexpr (R == Reset::SubtractDecayed) return k.beta * (U - k.theta * s) + I;
  else if constexpr (R == Reset::ToZero) return (k.beta * U) * (T(1) - s) + I;
  else if constexpr (R == Reset::ToZeroWithInput) return (k.beta * U + I) * (T(1) - s);
  else return k.beta * U + I;
}

// U[n] from U[n-1], s[n-1], I[n], not below `low` where there is a bound. NaN stays NaN.
template <Reset R, Bound B, class T> SNN_BOTH T membrane(T U, T s, T I, const Constants<T>& k, T low) {
  if constexpr (B == Bound::BeforeInput) {
    const T left = unbounded<R>(U, s, T(0), k), least = k.beta * low;
    return select(left < least, least, left) + I;
  }
  const T next = unbounded<R>(U, s, I, k);
  if constexpr (B == Bound::AfterInput) return select(next < low, low, next);
  return next;
}

// The spikes of a membrane; `most` a step where they are counted. A readout's output is its membrane.
template <Fire F, class T> SNN_BOTH T fire(T U, T theta, T most) {
  if constexpr (F == Fire::Reach) return select(U >= theta, T(1), T(0));
  else if constexpr (F == Fire::Exceed) return select(U > theta, T(1), T(0));
  else if constexpr (F == Fire::Count) {
    const T count = select(U < theta, T(0), std::trunc(U / theta));
    return select(count > most, most, count);
  } else return U;
}

// Partial derivatives of U[n] = membrane(U[n-1], s[n-1], I[n], beta, theta).
template <class T> struct Partials { T U, s, I, beta, theta; };

template <Reset R, class T> SNN_BOTH Partials<T> unbounded_partials(T U, T s, T I, const Constants<T>& k) {
  const T zero(0), one(1);
  if constexpr (R == Reset::Subtract) return {k.beta, -k.theta, one, U, -s};
  else if constexpr (R == Reset::SubtractDecayed) return {k.beta, -k.beta * k.theta, one, U - k.theta * s, -k.beta * s};
  else if constexpr (R == Reset::ToZero) return {k.beta * (one - s), -(k.beta * U), one, U * (one - s), zero};
  else if constexpr (R == Reset::ToZeroWithInput)
    return {k.beta * (one - s), -(k.beta * U + I), one - s, U * (one - s), zero};
  else return {k.beta, zero, one, U, zero};
}

// At a tie torch.maximum (before the input) gives each side one half, torch.clamp (after it) all to the membrane.
template <Reset R, Bound B, class T> SNN_BOTH Partials<T> partials(T U, T s, T I, const Constants<T>& k, T low) {
  Partials<T> d = unbounded_partials<R>(U, s, I, k);
  if constexpr (B == Bound::None) return d;
  constexpr bool before = B == Bound::BeforeInput;
  const T value = unbounded<R>(U, s, before ? T(0) : I, k), least = before ? k.beta * low : low;
  const T open = select(value > least, T(1), select(value < least, T(0), before ? T(0.5) : T(1)));
  d.U = d.U * open;
  d.s = d.s * open;
  d.beta = d.beta * open;
  d.theta = d.theta * open;
  if constexpr (before) d.beta = d.beta + (T(1) - open) * low;
  else d.I = d.I * open;
  return d;
}

// 2 to the power of x <= 0, by a polynomial that compilers turn into vector instructions: exact to a rounding error or
// two, 0 below the smallest normal number.
#if defined(__CUDA_ARCH__)
__device__ __forceinline__ float power_of_two(float x) { return exp2f(x); }
__device__ __forceinline__ double power_of_two(double x) { return exp2(x); }
#else
template <class T> struct Bits;
template <> struct Bits<float> {
  using Int = int32_t;
  static constexpr int mantissa = 23, bias = 127, terms = 7;
  static constexpr float shift = 12582912.0f, least = -126.0f;  // 1.5 * 2**23: adding it rounds to a whole number
};
template <> struct Bits<double> {
  using Int = int64_t;
  static constexpr int mantissa = 52, bias = 1023, terms = 13;
  static constexpr double shift = 6755399441055744.0, least = -1022.0;
};
template <class T> inline __attribute__((always_inline)) T power_of_two(T x) {
  using B = Bits<T>;
  const T inside = select(x < B::least, B::least, x);
  const T shifted = inside + B::shift, whole = shifted - B::shift, y = (inside - whole) * T(0.693147180559945309);
  T sum = T(1);
#pragma GCC unroll 16
  for (int n = B::terms; n >= 1; n--) sum = T(1) + sum * (y * (T(1) / T(n)));  // sum of y**n / n!
  union { T number; typename B::Int bits; } scale, offset;
  scale.number = shifted;
  offset.number = B::shift;
  scale.bits = (scale.bits - offset.bits + B::bias) << B::mantissa;
  return select(x < B::least, T(0), sum * scale.number);
}
#endif

// sigma'(x), x = U - theta.
template <class T> struct Surrogate {
  T inverse_width, peak;  // of a boxcar the width itself: its edge is decided without rounding
  T within;  // zero where |x| >= within; infinity for the whole slope
};

template <Slope S, class T> SNN_BOTH T slope_at(T x, const Surrogate<T>& f) {
  const T size = absolute(x), z = size * f.inverse_width;
  T y;
  if constexpr (S == Slope::PiecewiseLinear) {
    const T left = T(1) - z * T(0.5);
    y = select(left < T(0), T(0), left);
  } else if constexpr (S == Slope::FastSigmoid) {
    const T d = T(1) + T(0.41421356237309504880) * z;
    y = T(1) / (d * d);
  } else if constexpr (S == Slope::Exponential) y = power_of_two(-z);
  else if constexpr (S == Slope::Boxcar) y = select(size <= f.inverse_width, T(1), T(0));
  else if constexpr (S == Slope::Sigmoid) {  // 1 - tanh(c z)**2 = 4 q / (1 + q)**2, q = exp(-2 c z), c = arccosh(sqrt 2)
    const T q = power_of_two(T(-2.5431066063272243) * z), d = T(1) + q;
    y = T(4) * q / (d * d);
  } else if constexpr (S == Slope::ArcTan) y = T(1) / (T(1) + z * z);
  else if constexpr (S == Slope::Gaussian) y = power_of_two(-(z * z));
  else y = T(1);
  return select(size < f.within, f.peak * y, T(0));
}

}  // namespace snn
