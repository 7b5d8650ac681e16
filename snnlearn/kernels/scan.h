// A layer of neurons over all steps, in one pass over memory. Arrays are (T, M), M = batch * neurons. A block of neurons
// keeps its state in the first cache while time goes by; a step is made tile by tile, each tile by a few short loops that
// a compiler turns into vector instructions. Which loop, is chosen for a tile, never for a neuron.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>
#include "lif.h"
#include "portable.h"

namespace snn {

constexpr int64_t kTile = 64;                                      // neurons between two choices of a loop
template <class T> constexpr int64_t kBlock = 8192 / sizeof(T);    // neurons whose state stays in the first cache

template <auto V> using Is = std::integral_constant<decltype(V), V>;

// f(Is<R>, Is<B>) for the reset and the bound that were chosen at run time; the next two likewise.
template <class F> inline void with_reset(Reset reset, Bound bound, const F& f) {
  const auto bounded = [&](auto r) {
    if (bound == Bound::None) f(r, Is<Bound::None>{});
    else if (bound == Bound::BeforeInput) f(r, Is<Bound::BeforeInput>{});
    else f(r, Is<Bound::AfterInput>{});
  };
  switch (reset) {
    case Reset::Subtract: return bounded(Is<Reset::Subtract>{});
    case Reset::SubtractDecayed: return bounded(Is<Reset::SubtractDecayed>{});
    case Reset::ToZero: return bounded(Is<Reset::ToZero>{});
    case Reset::ToZeroWithInput: return bounded(Is<Reset::ToZeroWithInput>{});
    case Reset::None: return bounded(Is<Reset::None>{});
  }
}
template <class F> inline void with_fire(Fire fire, const F& f) {
  switch (fire) {
    case Fire::Reach: return f(Is<Fire::Reach>{});
    case Fire::Exceed: return f(Is<Fire::Exceed>{});
    case Fire::Count: return f(Is<Fire::Count>{});
    case Fire::Analog: return f(Is<Fire::Analog>{});
  }
}
template <class F> inline void with_slope(Slope slope, const F& f) {
  switch (slope) {
    case Slope::PiecewiseLinear: return f(Is<Slope::PiecewiseLinear>{});
    case Slope::FastSigmoid: return f(Is<Slope::FastSigmoid>{});
    case Slope::Exponential: return f(Is<Slope::Exponential>{});
    case Slope::Boxcar: return f(Is<Slope::Boxcar>{});
    case Slope::Sigmoid: return f(Is<Slope::Sigmoid>{});
    case Slope::ArcTan: return f(Is<Slope::ArcTan>{});
    case Slope::Gaussian: return f(Is<Slope::Gaussian>{});
    case Slope::Straight: return f(Is<Slope::Straight>{});
  }
}

// One number for all neurons, or an array (M) with one for each.
template <class T> struct Each {
  const T *alpha = nullptr, *beta = nullptr, *theta = nullptr;
  explicit operator bool() const { return beta != nullptr; }
  Each from(int64_t m) const { return *this ? Each{alpha + m, beta + m, theta + m} : Each{}; }
};

template <class T> struct Neurons {
  Reset reset;
  Bound bound;
  Fire fire;
  bool synapse;  // whether there is a synaptic current, so that I is not a itself
  Constants<T> all;
  Each<T> each;
  T low, most;

  // f(constants of neuron j as a function), for a tile that begins at neuron m.
  template <class F> void with_constants(int64_t m, const F& f) const {
    if (each) {
      const Each<T> here = each.from(m);
      f([here](int64_t j) { return Constants<T>{here.alpha[j], here.beta[j], here.theta[j]}; });
    } else {
      const Constants<T> k = all;
      f([k](int64_t) { return k; });
    }
  }

  // n spikes of n membranes.
  void spikes(const T* U, T* s, int64_t m, int64_t n) const {
    with_fire(fire, [&](auto F) {
      with_constants(m, [&](auto k) {
        for (int64_t j = 0; j < n; j++) s[j] = snn::fire<F.value>(U[j], k(j).theta, most);
      });
    });
  }
};

template <class T> struct State { const T *I, *U, *s; };  // each (M)

// Asks for n numbers that are wanted a step later: a processor that guesses ahead stops at the end of a row.
template <class T> inline void prefetch(const T* x, int64_t n) {
  for (int64_t j = 0; j < n; j += 64 / int64_t(sizeof(T))) __builtin_prefetch(x + j);
}

// Neurons m0 .. m0 + w, forward. I may be null: then it is not wanted, or a itself.
template <class T>
void scan_forward_block(const Neurons<T>& p, const T* a, State<T> first, T* I, T* U, T* s, int64_t steps, int64_t M, int64_t m0,
                        int64_t w) {
  alignas(64) T i[kBlock<T>], u[kBlock<T>], spike[kBlock<T>];
  std::copy_n(first.I + m0, w, i);
  std::copy_n(first.U + m0, w, u);
  std::copy_n(first.s + m0, w, spike);
  for (int64_t t = 0; t < steps; t++)
    for (int64_t j0 = 0; j0 < w; j0 += kTile) {
      const int64_t n = std::min(kTile, w - j0), at = t * M + m0 + j0;
      const T* in = a + at;
      if (t + 1 < steps) prefetch(in + M, n);
      T *ij = i + j0, *uj = u + j0, *sj = spike + j0;
      p.with_constants(m0 + j0, [&](auto k) {
        if (p.synapse) {
          for (int64_t j = 0; j < n; j++) ij[j] = k(j).alpha * ij[j] + in[j];
          in = ij;
        }
        with_reset(p.reset, p.bound, [&](auto R, auto B) {
          const T low = p.low;
          for (int64_t j = 0; j < n; j++) uj[j] = membrane<R.value, B.value>(uj[j], sj[j], in[j], k(j), low);
        });
      });
      p.spikes(uj, sj, m0 + j0, n);
      if (I) stream_copy(I + at, ij, n);
      stream_copy(U + at, uj, n);
      stream_copy(s + at, sj, n);
    }
  stream_fence();
}

// A row of an array (T, M) of errors; the same one at every step where stride is 0, null where there is none.
template <class T> struct Errors {
  const T* from = nullptr;
  int64_t stride = 0;
  const T* row(int64_t t) const { return from ? from + t * stride : nullptr; }
};

// TSSL-BP's factors (Zhang & Li 2020; snnlearn/temporal/tsslbp.py): through spike times instead of a surrogate.
template <class T> struct SpikeTimes {
  bool on = false, intra = false, leak = false;
  T largest = 0, width = 0, limit = 0;   // of 1 / u'; of the fallback's sigmoid
  const T* psc = nullptr;                // (T, M), the neuron's own postsynaptic current; null: no fallback
  T weak = 0;                            // the fallback takes over below this
};

template <class T> struct Credit {
  Seen seen;
  Slope slope;
  Surrogate<T> surrogate;
  SpikeTimes<T> times;
};

template <class T> struct Reverse {
  Errors<T> e_I, e_U, e_s;
  const T *I, *U;                         // (T, M); I only where it is looked at
  State<T> first;                         // before the first step
  const T *lam, *kap, *I_next;            // of the step after the last, (M); null: none
  T* out;                                 // kap, (T, M)
  T *to_I, *to_U, *to_s;                  // gradients of the state before the first step, (M)
  T *to_alpha, *to_beta, *to_theta;       // gradients of the constants, (M); null: not wanted
  T* first_lam;                           // lam of the first step, (M)
};

// The partial derivatives of the step from n to n+1, of a tile.
template <class T> struct Slopes {
  alignas(64) T U[kTile], s[kTile], I[kTile], beta[kTile], theta[kTile];
};

// What one tile needs at one step.
template <class T> struct Tile {
  alignas(64) T f[kTile], c[kTile], q[kTile], p[kTile], s[kTile], s_before[kTile];
  Slopes<T> ahead, here;
};

// One number for each neuron of a tile, whatever the neurons have.
template <class T> struct Filled {
  alignas(64) T alpha[kTile], beta[kTile], theta[kTile];

  explicit Filled(const Constants<T>& k) {
    std::fill_n(alpha, kTile, k.alpha);
    std::fill_n(beta, kTile, k.beta);
    std::fill_n(theta, kTile, k.theta);
  }
  Each<T> at(const Neurons<T>& p, int64_t m) const { return p.each ? p.each.from(m) : Each<T>{alpha, beta, theta}; }
};

// At membranes U, spikes s and, where they are looked at, currents I one step later; of what the gradient sees.
template <class T>
void slopes_of_step(const Neurons<T>& p, Seen seen, const Each<T>& k, int64_t n, const T* U, const T* s, const T* I,
                    Slopes<T>& d) {
  const bool ignored = seen == Seen::Ignored;
  with_reset(ignored ? Reset::None : p.reset, ignored ? Bound::None : p.bound, [&](auto R, auto B) {
    const T low = p.low;
    for (int64_t j = 0; j < n; j++) {
      const Constants<T> own{k.alpha[j], k.beta[j], k.theta[j]};
      const Partials<T> x = partials<R.value, B.value>(U[j], s[j], I[j], own, low);
      d.U[j] = x.U;
      d.s[j] = x.s;
      d.I[j] = x.I;
      d.beta[j] = x.beta;
      d.theta[j] = x.theta;
    }
  });
  if (seen != Seen::Kept) std::fill_n(d.s, n, T(0));
}

// f, c, p and q of TSSL-BP. U_before and s_before are those of the step before.
template <class T>
void credit_by_times(const Neurons<T>& p, const Credit<T>& credit, int64_t n, const T* U, const T* U_before, const T* psc,
                     Tile<T>& x) {
  const SpikeTimes<T>& k = credit.times;
  const T beta = p.all.beta, theta = p.all.theta;
  for (int64_t j = 0; j < n; j++) {
    const T s = x.s[j], rise = select(s > T(0), U[j] - U_before[j] * (T(1) - x.s_before[j]), T(1)), one = T(1) / rise;
    const T f = s * select(one < T(0), T(0), select(one > k.largest, k.largest, one));
    x.f[j] = f;
    x.c[j] = k.intra ? beta * (T(1) - s) + f * U[j] * (T(1) - beta) : T(0);
    x.q[j] = k.leak ? T(1) : s;
    x.p[j] = T(0);
  }
  if (!psc) return;
  const T per_width = T(1.442695040888963407) / k.width, limit = T(1.442695040888963407) * k.limit;
  for (int64_t j = 0; j < n; j++) {  // exp(-z) / ((1 + exp(-z))**2 * width), even in z
    const T z = absolute(U[j] - theta) * per_width, power = power_of_two(-select(z > limit, limit, z)), d = T(1) + power;
    const bool weak = psc[j] < k.weak;
    x.p[j] = select(weak, power / (d * d * k.width), T(0));
    x.q[j] = select(weak, T(0), x.q[j]);
  }
}

// f and c of the adjoint, from the slopes ahead.
template <class T>
void credit_by_slope(const Neurons<T>& p, const Credit<T>& credit, const Each<T>& k, int64_t n, const T* U, Tile<T>& x) {
  if (p.fire == Fire::Analog) std::fill_n(x.f, n, T(1));
  else with_slope(credit.slope, [&](auto S) {
    const Surrogate<T> surrogate = credit.surrogate;
    for (int64_t j = 0; j < n; j++) x.f[j] = slope_at<S.value>(U[j] - k.theta[j], surrogate);
  });
  for (int64_t j = 0; j < n; j++) x.c[j] = x.ahead.U[j] + x.ahead.s[j] * x.f[j];
}

// The same and the recursion itself in one loop, where neither s nor I enters: all neurons have the same constants, and
// the carry is beta, with the reset kept and by subtraction a multiple of f less.
template <class T> struct Plain {
  bool on = false;
  T carry = 0, jump = 0;

  Plain(const Neurons<T>& p, const Credit<T>& credit, bool constants) {
    const Reset reset = credit.seen == Seen::Ignored ? Reset::None : p.reset;
    on = !p.each && !constants && !credit.times.on && (credit.seen == Seen::Ignored || p.bound == Bound::None) &&
         reset != Reset::ToZero && reset != Reset::ToZeroWithInput;
    with_reset(reset, Bound::None, [&](auto R, auto B) {
      const auto d = partials<R.value, B.value>(T(0), T(0), T(0), p.all, T(0));
      carry = d.U;
      jump = credit.seen == Seen::Kept ? d.s : T(0);
    });
  }

  void step(const Neurons<T>& p, const Credit<T>& credit, int64_t n, const T* U, const T* e, T* lam) const {
    const bool analog = p.fire == Fire::Analog;
    const Surrogate<T> surrogate = analog ? Surrogate<T>{1, 1, std::numeric_limits<T>::infinity()} : credit.surrogate;
    const T theta = p.all.theta, fixed = carry, per_slope = jump;
    with_slope(analog ? Slope::Straight : credit.slope, [&](auto S) {
      for (int64_t j = 0; j < n; j++) {
        const T f = slope_at<S.value>(U[j] - theta, surrogate);
        lam[j] = f * e[j] + (fixed + per_slope * f) * lam[j];
      }
    });
  }
};

// Neurons m0 .. m0 + w, from the last step to the first.
template <class T>
void scan_reverse_block(const Neurons<T>& p, const Credit<T>& credit, const Reverse<T>& r, int64_t steps, int64_t M, int64_t m0,
                        int64_t w) {
  alignas(64) T lam[kBlock<T>] = {}, kap[kBlock<T>] = {}, zeros[kTile] = {};
  Tile<T> x;
  const Filled<T> filled(p.all);
  if (r.lam) std::copy_n(r.lam + m0, w, lam);
  if (r.kap) std::copy_n(r.kap + m0, w, kap);
  const bool constants = r.to_beta != nullptr, by_times = credit.times.on, seen = credit.seen != Seen::Ignored;
  const bool input_fades = seen && (p.reset == Reset::ToZeroWithInput || p.bound == Bound::AfterInput);  // q is not 1
  const bool has_q = by_times || input_fades, has_p = by_times && credit.times.psc;
  const bool is_lam = !has_q && !p.synapse;  // kap is
  const Plain<T> plain(p, credit, constants);
  for (int64_t t = steps - 1; t >= 0; t--)
    for (int64_t j0 = 0; j0 < w; j0 += kTile) {
      const int64_t n = std::min(kTile, w - j0), m = m0 + j0, at = t * M + m;
      const Each<T> k = filled.at(p, m);
      const T *U = r.U + at, *U_before = t ? U - M : r.first.U + m;
      T *lj = lam + j0, *kj = kap + j0;
      const T *e_s = r.e_s.row(t), *e_U = r.e_U.row(t), *e_I = r.e_I.row(t);
      if (t) {
        prefetch(U - M, n);
        if (e_s) prefetch(r.e_s.row(t - 1) + m, n);
      }
      e_s = e_s ? e_s + m : zeros;
      if (plain.on) {
        plain.step(p, credit, n, U, e_s, lj);
      } else {
        const T* I = r.I ? r.I + at : zeros;
        const T* I_next = t + 1 < steps ? (r.I ? I + M : zeros) : (r.I_next ? r.I_next + m : zeros);
        p.spikes(U, x.s, m, n);
        if (has_q) {
          if (t) p.spikes(U_before, x.s_before, m, n);
          else std::copy_n(r.first.s + m, n, x.s_before);
        }
        if (by_times) {
          credit_by_times(p, credit, n, U, U_before, has_p ? credit.times.psc + at : nullptr, x);
        } else {
          slopes_of_step(p, credit.seen, k, n, U, x.s, I_next, x.ahead);
          credit_by_slope(p, credit, k, n, U, x);
          if (input_fades) {
            slopes_of_step(p, credit.seen, k, n, U_before, x.s_before, I, x.here);
            std::copy_n(x.here.I, n, x.q);
          }
        }
        if (constants) {
          T *beta = r.to_beta + m, *theta = r.to_theta + m;
          if (t + 1 < steps)  // the step after the last belongs to a later piece, which has counted it
            for (int64_t j = 0; j < n; j++) {
              beta[j] += lj[j] * x.ahead.beta[j];
              theta[j] += lj[j] * x.ahead.theta[j];
            }
          if (p.fire != Fire::Analog)  // theta where the neuron fires: -f times all that s has to answer for
            for (int64_t j = 0; j < n; j++) theta[j] -= x.f[j] * (e_s[j] + lj[j] * x.ahead.s[j]);
        }
        for (int64_t j = 0; j < n; j++) lj[j] = x.f[j] * e_s[j] + x.c[j] * lj[j];
      }
      if (e_U) for (int64_t j = 0; j < n; j++) lj[j] += e_U[m + j];
      if (has_p) for (int64_t j = 0; j < n; j++) kj[j] = (x.q[j] * lj[j] + x.p[j] * e_s[j]) + k.alpha[j] * kj[j];
      else if (has_q) for (int64_t j = 0; j < n; j++) kj[j] = x.q[j] * lj[j] + k.alpha[j] * kj[j];
      else if (p.synapse) for (int64_t j = 0; j < n; j++) kj[j] = lj[j] + k.alpha[j] * kj[j];
      else if (e_I) std::copy_n(lj, n, kj);
      if (e_I) for (int64_t j = 0; j < n; j++) kj[j] += e_I[m + j];
      if (constants && p.synapse) {
        const T* I_before = t ? (r.I ? r.I + at - M : zeros) : r.first.I + m;
        for (int64_t j = 0; j < n; j++) r.to_alpha[m + j] += kj[j] * I_before[j];
      }
      stream_copy(r.out + at, is_lam && !e_I ? lj : kj, n);
    }
  stream_fence();
  for (int64_t j0 = 0; j0 < w; j0 += kTile) {  // the step from the state before to the first
    const int64_t n = std::min(kTile, w - j0), m = m0 + j0;
    const Each<T> k = filled.at(p, m);
    slopes_of_step(p, credit.seen, k, n, r.first.U + m, r.first.s + m, r.I ? r.I + m : zeros, x.here);
    for (int64_t j = 0; j < n; j++) {
      const T l = lam[j0 + j];
      r.first_lam[m + j] = l;
      r.to_I[m + j] = k.alpha[j] * kap[j0 + j];
      r.to_U[m + j] = x.here.U[j] * l;
      r.to_s[m + j] = x.here.s[j] * l;
    }
    if (constants)
      for (int64_t j = 0; j < n; j++) {
        r.to_beta[m + j] += lam[j0 + j] * x.here.beta[j];
        r.to_theta[m + j] += lam[j0 + j] * x.here.theta[j];
      }
  }
}

}  // namespace snn
