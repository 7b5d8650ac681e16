// The CUDA twin of scan.h: a layer of neurons over all steps, one thread a neuron, its state in registers. Arrays are
// (T, M), M = batch * neurons, so that neighbouring threads read and write neighbouring numbers.
//
// Plain pointers and a stream, no ATen: nvcc compiles the file alone in seconds, and ctypes calls it (cuda.py).
// Compile with --fmad=false: spikes are then those of the reference, to the last bit.
#include "launch.cuh"

namespace snn {

constexpr unsigned kThreads = 128;
// Steps whose inputs are asked for before the first is used, since memory answers slowly; in the reverse pass, where a
// step reads up to six numbers, fewer. Double precision and TSSL-BP are to be right, and quickly compiled.
template <class T> constexpr int kAheadOf = sizeof(T) == 4 ? 8 : 2;
template <class T, bool kTimes> constexpr int kBehindOf = sizeof(T) == 4 && !kTimes ? 4 : 1;

// The layer. In cuda.py stands the same struct; the order of the fields is part of the interface.
struct Layer {
  int64_t steps, M;
  const void *I0, *U0, *s0;             // before the first step, each (M)
  const void *alpha, *beta, *theta;     // (M) each, or all null: then the three numbers
  double alpha_all, beta_all, theta_all, low, most;
  int32_t reset, bound, fire, synapse;  // without a synapse the current I is the input a itself
  int32_t is_double, padding;
};

struct Forward {
  const void* a;
  void *I, *U, *s;  // I may be null
};

// The errors are (T, M) with `stride` numbers from step to step, 0 where every step has the same; null: none.
struct Reverse {
  const void *e_I, *e_U, *e_s;
  int64_t stride_I, stride_U, stride_s;
  const void *I, *U;                          // I null where nothing looks at it
  const void *lam, *kap, *I_next;             // of the step after the last, (M); null: none
  void* out;                                  // kap, (T, M)
  void *to_I, *to_U, *to_s, *first_lam;       // (M)
  void *to_alpha, *to_beta, *to_theta;        // (M), set, not added to; all null: not wanted
  const void* psc;                            // TSSL-BP: (T, M), the neuron's own current; null: no fallback
  double inverse_width, peak, within;         // of the surrogate
  double largest, width, limit, weak;         // TSSL-BP's 1 / u', fallback's sigmoid, and where the fallback begins
  int32_t slope, seen, by_times, intra, leak, padding;
};

template <class T> SNN_BOTH T at(const void* p, int64_t m) { return p ? static_cast<const T*>(p)[m] : T(0); }
template <class T> SNN_BOTH void put(void* p, int64_t m, T value) { static_cast<T*>(p)[m] = value; }

template <class T> SNN_BOTH Constants<T> constants_at(const Layer& n, int64_t m) {
  if (n.beta) return {at<T>(n.alpha, m), at<T>(n.beta, m), at<T>(n.theta, m)};
  return {T(n.alpha_all), T(n.beta_all), T(n.theta_all)};
}

template <class T, Reset R>
__global__ void __launch_bounds__(kThreads) forward_kernel(const Layer n, const Forward g) {
  const int64_t m = int64_t(blockIdx.x) * kThreads + threadIdx.x, M = n.M;
  if (m >= M) return;
  constexpr int kAhead = kAheadOf<T>;
  const Constants<T> k = constants_at<T>(n, m);
  const T low = T(n.low), most = T(n.most);
  const Bound bound = Bound(n.bound);
  const Fire fires = Fire(n.fire);
  T I = at<T>(n.I0, m), U = at<T>(n.U0, m), s = at<T>(n.s0, m);
  for (int64_t first = 0; first < n.steps; first += kAhead) {
    const int64_t i = first * M + m, left = n.steps - first;
    T a[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; j++)
      if (j < left) a[j] = at<T>(g.a, i + j * M);
#pragma unroll
    for (int j = 0; j < kAhead; j++)
      if (j < left) {
        I = n.synapse ? k.alpha * I + a[j] : a[j];
        U = membrane_of<R>(bound, U, s, I, k, low);
        s = fire_of(fires, U, k.theta, most);
        if (g.I) put(g.I, i + j * M, I);
        put(g.U, i + j * M, U);
        put(g.s, i + j * M, s);
      }
  }
}

// The factors of a step: lam[n] = f e[n] + c lam[n+1], kap[n] = p e[n] + q lam[n] + alpha kap[n+1].
template <class T> struct Factors { T f, c, p, q; };

// TSSL-BP's (snnlearn/temporal/tsslbp.py), at a step with U and s after one with U1 and s1.
template <class T>
SNN_BOTH Factors<T> by_times(const Reverse& g, const Constants<T>& k, T U, T s, T U1, T s1, T psc) {
  const T rise = select(s > T(0), U - U1 * (T(1) - s1), T(1)), one = T(1) / rise, largest = T(g.largest);
  const T f = s * select(one < T(0), T(0), select(one > largest, largest, one));
  const T c = g.intra ? k.beta * (T(1) - s) + f * U * (T(1) - k.beta) : T(0), q = g.leak ? T(1) : s;
  if (!g.psc) return {f, c, T(0), q};
  const bool weak = psc < T(g.weak);
  const T per_e = T(1.442695040888963407), limit = per_e * T(g.limit), width = T(g.width);
  const T z = absolute(U - k.theta) * (per_e / width), power = power_of_two(-select(z > limit, limit, z));
  const T d = T(1) + power;
  // exp(-z) / ((1 + exp(-z))**2 * width), even in z
  return {f, c, select(weak, power / (d * d * width), T(0)), select(weak, T(0), q)};
}

// R and the bound are those that the gradient sees.
template <class T, Reset R, bool kTimes>
__global__ void __launch_bounds__(kThreads) reverse_kernel(const Layer n, const Reverse g) {
  const int64_t m = int64_t(blockIdx.x) * kThreads + threadIdx.x, M = n.M;
  if (m >= M) return;
  constexpr int kBehind = kBehindOf<T, kTimes>;
  const Constants<T> k = constants_at<T>(n, m);
  const Surrogate<T> surrogate = {T(g.inverse_width), T(g.peak), T(g.within)};
  const T low = T(n.low), most = T(n.most);
  const Bound bound = Bound(n.bound);
  const Fire fires = Fire(n.fire);
  const bool kept = Seen(g.seen) == Seen::Kept, analog = fires == Fire::Analog, constants = g.to_beta;
  T lam = at<T>(g.lam, m), kap = at<T>(g.kap, m), to_alpha = 0, to_beta = 0, to_theta = 0;
  T U = at<T>(n.steps ? g.U : n.U0, (n.steps ? n.steps - 1 : 0) * M + m);
  T s = n.steps ? fire_of(fires, U, k.theta, most) : at<T>(n.s0, m);
  Partials<T> next = partials_of<R>(bound, U, s, at<T>(g.I_next, m), k, low);  // of the step after this one
  for (int64_t end = n.steps; end > 0; end -= kBehind) {
    // Entry j is step end - 1 - j, U that of the step before it. Nothing is read before the first step but its state.
    T e_s[kBehind], e_U[kBehind], e_I[kBehind], I[kBehind], psc[kBehind], U_before[kBehind], x[kBehind], f[kBehind];
#pragma unroll
    for (int j = 0; j < kBehind; j++) {
      const int64_t t = end - 1 - j;
      e_s[j] = t >= 0 ? at<T>(g.e_s, t * g.stride_s + m) : T(0);
      e_U[j] = t >= 0 ? at<T>(g.e_U, t * g.stride_U + m) : T(0);
      e_I[j] = t >= 0 ? at<T>(g.e_I, t * g.stride_I + m) : T(0);
      I[j] = t >= 0 ? at<T>(g.I, t * M + m) : T(0);
      psc[j] = kTimes && t >= 0 ? at<T>(g.psc, t * M + m) : T(0);
      U_before[j] = t > 0 ? at<T>(g.U, (t - 1) * M + m) : at<T>(n.U0, m);
      x[j] = (j ? U_before[j ? j - 1 : 0] : U) - k.theta;
    }
    if (kTimes || analog) {
#pragma unroll
      for (int j = 0; j < kBehind; j++) f[j] = T(1);
    } else {
      slopes_of(x, Slope(g.slope), surrogate, f);
    }
#pragma unroll
    for (int j = 0; j < kBehind; j++) {
      const int64_t t = end - 1 - j;
      if (t < 0) break;
      const T s_before = t ? fire_of(fires, U_before[j], k.theta, most) : at<T>(n.s0, m);
      const Partials<T> now = partials_of<R>(bound, U_before[j], s_before, I[j], k, low);
      Factors<T> x{f[j], kept ? next.U + next.s * f[j] : next.U, T(0), now.I};
      if constexpr (kTimes) x = by_times(g, k, U, s, U_before[j], s_before, psc[j]);
      if (constants && !analog)  // theta where the neuron fires: -f times all that s has to answer for
        to_theta -= x.f * (kept ? e_s[j] + next.s * lam : e_s[j]);
      lam = x.f * e_s[j] + x.c * lam;
      if (g.e_U) lam = lam + e_U[j];
      T delta = x.q * lam;
      if constexpr (kTimes) delta = delta + x.p * e_s[j];
      kap = delta + k.alpha * kap;
      if (g.e_I) kap = kap + e_I[j];
      put(g.out, t * M + m, kap);
      if (constants) {
        to_alpha += kap * (t ? at<T>(g.I, (t - 1) * M + m) : at<T>(n.I0, m));
        to_beta += now.beta * lam;
        to_theta += now.theta * lam;
      }
      U = U_before[j];
      s = s_before;
      next = now;
    }
  }
  put(g.first_lam, m, lam);
  put(g.to_I, m, k.alpha * kap);
  put(g.to_U, m, next.U * lam);
  put(g.to_s, m, kept ? next.s * lam : T(0));
  if (constants) {
    put(g.to_alpha, m, to_alpha);
    put(g.to_beta, m, to_beta);
    put(g.to_theta, m, to_theta);
  }
}

inline unsigned blocks_of(int64_t M) { return unsigned((M + kThreads - 1) / kThreads); }
inline bool wrong(const Layer& n) { return n.fire < 0 || n.fire > 3 || n.bound < 0 || n.bound > 2 || n.steps < 0; }

template <class T> int forward(const Layer& n, const Forward& g, void* stream) {
  return with_reset(n.reset, [&](auto R) {
    return launch(forward_kernel<T, decltype(R)::value>, blocks_of(n.M), kThreads, stream, n, g);
  });
}

template <class T> int reverse(const Layer& n, const Reverse& g, void* stream) {
  if (g.by_times) {
    if (Reset(n.reset) != Reset::ToZero) return kInvalid;
    return launch(reverse_kernel<T, Reset::ToZero, true>, blocks_of(n.M), kThreads, stream, n, g);
  }
  return with_reset(n.reset, [&](auto R) {
    return launch(reverse_kernel<T, decltype(R)::value, false>, blocks_of(n.M), kThreads, stream, n, g);
  });
}

}  // namespace snn

extern "C" {

const char* snn_error(int code) { return snn::error_name(code); }

// Each returns a cudaError_t, 0 for none.
int snn_scan_forward(const snn::Layer* n, const snn::Forward* g, void* stream) {
  if (wrong(*n)) return snn::kInvalid;
  if (n->M == 0 || n->steps == 0) return 0;
  return n->is_double ? snn::forward<double>(*n, *g, stream) : snn::forward<float>(*n, *g, stream);
}

int snn_scan_reverse(const snn::Layer* n, const snn::Reverse* g, void* stream) {
  if (wrong(*n) || g->slope < 0 || g->slope > 7 || g->seen < 0 || g->seen > 2) return snn::kInvalid;
  if (n->M == 0) return 0;
  snn::Layer seen = *n;  // a gradient that ignores the reset sees none, nor its bound
  if (snn::Seen(g->seen) == snn::Seen::Ignored && !g->by_times) {
    seen.reset = int32_t(snn::Reset::None);
    seen.bound = int32_t(snn::Bound::None);
  }
  return n->is_double ? snn::reverse<double>(seen, *g, stream) : snn::reverse<float>(seen, *g, stream);
}

}
