// Linear and the neurons behind it in one pass, driven by events: an input spike adds one row of weights, silence costs
// nothing.
//
//   a[n] = bias + sum of the rows of W whose inputs spike at n        I, U, s as in lif.h
//
// Spikes are bits: a word holds 64 neurons of one (t, b). Weights are stored by blocks of 64 outputs, (blocks, inputs,
// 64), padded with zeros, so that a block of outputs is one word of spikes. A block runs through all steps with its
// state in registers.
//
// Backward there are two ways. `exact_chunk` has an error for every neuron and step; it makes the membrane again, 64
// steps at a time, from checkpoints. `sparse_block` has errors only where a neuron is near its threshold; the membranes
// there were kept, so nothing is made again. Both are the recursion of lif.h and differ by rounding only.
#pragma once
#include <algorithm>
#include <vector>

#include "event_lists.h"
#include "portable.h"

namespace snn::events {

constexpr int64_t kChunk = 64;  // steps between checkpoints
constexpr int64_t kAhead = 8;   // steps between asking for a row of a dense array and using it

inline int64_t chunks_of(int64_t steps) { return (steps + kChunk - 1) / kChunk; }

// What one sample and one block of outputs see of a layer.
struct Part {
  int64_t steps;
  Constants<float> k;
  const float* weight;  // (inputs, 64)
  const float* bias;    // (64), or null
  int64_t lanes;        // outputs of this block that exist: 64 but for the last block
  int64_t words;        // from step to step in this sample's bits, (T, words)
  int64_t stride;       // from step to step in dense arrays, (T, B, N)
  float* checkpoints;   // I and U before steps 0, 64, ..: (chunks, 2, 64); null: not wanted

  uint64_t exist() const { return ~uint64_t(0) >> (kLanes - lanes); }
};

SNN_BOTH Constants<Lanes> everywhere(const Constants<float>& k) { return {Lanes(k.alpha), Lanes(k.beta), Lanes(k.theta)}; }

// a[n]: stays in registers.
SNN_BOTH Block current(const Part& p, const int32_t* i, const int32_t* end) {
  Block a = p.bias ? Block::load(p.bias) : Block::all(0.0f);
  for (; i != end; ++i) {
    const float* row = p.weight + int64_t(*i) * kLanes;
#pragma GCC unroll 16
    for (int v = 0; v < kRegisters; v++) a.v[v] = a.v[v] + Lanes::load(row + v * kWide);
  }
  return a;
}

struct Moment { Block I, U; };  // between two steps

template <Reset R, Fire F> SNN_BOTH void step(Moment& x, const Block& a, const Constants<Lanes>& k) {
#pragma GCC unroll 16
  for (int v = 0; v < kRegisters; v++) {
    const Lanes s = F == Fire::Analog ? Lanes(0.0f) : fire<F>(x.U.v[v], k.theta, Lanes(1.0f));
    x.I.v[v] = k.alpha * x.I.v[v] + a.v[v];
    x.U.v[v] = membrane<R, Bound::None>(x.U.v[v], s, x.I.v[v], k, Lanes(0.0f));
  }
}

// What the forward pass leaves; each may be null.
struct Found {
  uint64_t *spikes, *near;         // at t * words
  float within;                    // a neuron is near where |U - theta| < within
  std::vector<float>* near_U;      // membranes of near neurons, appended in the order of (t, neuron)
  float* U;                        // dense
};

template <Reset R, Fire F> void forward_block(const Events& in, const Part& p, const Found& out) {
  const Constants<Lanes> k = everywhere(p.k);
  const Lanes within(out.within);
  const uint64_t exist = p.exist();
  Moment x{Block::all(0.0f), Block::all(0.0f)};
  std::vector<float> none;
  std::vector<float>& list = out.near_U ? *out.near_U : none;
  auto n = int64_t(list.size());
  for (int64_t first = 0; first < p.steps; first += kChunk) {
    if (p.checkpoints) {
      float* c = p.checkpoints + first / kChunk * 2 * kLanes;
      x.I.store(c);
      x.U.store(c + kLanes);
    }
    if (out.near && int64_t(list.size()) < n + kChunk * kLanes + kWide) list.resize(2 * (n + kChunk * kLanes + kWide));
    const int64_t last = std::min(p.steps, first + kChunk);
    for (int64_t t = first; t < last; t++) {
      step<R, F>(x, current(p, in.begin(t), in.end(t)), k);
      if (out.U) x.U.store(out.U + t * p.stride, p.lanes);
      if constexpr (F != Fire::Analog) {
        uint64_t spikes = 0, near = 0;
#pragma GCC unroll 16
        for (int v = 0; v < kRegisters; v++) spikes |= above<F == Fire::Reach>(x.U.v[v], k.theta) << (v * kWide);
        if (out.spikes) out.spikes[t * p.words] = spikes & exist;
        if (out.near) {
#pragma GCC unroll 16
          for (int v = 0; v < kRegisters; v++)
            near |= above<false>(within, absolute(x.U.v[v] - k.theta)) << (v * kWide);
          near &= exist;
          out.near[t * p.words] = near;
          n = compress(x.U, near, list.data() + n) - list.data();
        }
      }
    }
  }
  if (out.near_U) list.resize(n);
}

// The row of a dense array (T, B, N) that will be used kAhead steps further back: no processor guesses where that is.
// Always inline: a function that does nothing but prefetch is one that GCC may leave out.
template <bool Write> SNN_BOTH void ask(const float* row, const Part& p) {
  for (int64_t j = 0; j < p.lanes; j += 16) __builtin_prefetch(row + j, Write);
}
template <bool Write> SNN_BOTH void ask_ahead(const float* now, const Part& p, int64_t t) {
  if (t >= kAhead) ask<Write>(now - kAhead * p.stride, p);
}
template <bool Write> SNN_BOTH void ask_last(const float* array, const Part& p, int64_t n) {
  for (int64_t t = n; t-- > std::max<int64_t>(0, n - kAhead);) ask<Write>(array + t * p.stride, p);
}

// What dL/da goes into. All of it begins at the first of the steps that are gone back through.
struct Sinks {
  const Events& events;
  const ByInput& sorted;  // the same, where that is worth it
  float* kap;             // for `sorted`, room for dL/da of a sweep, (kSweep, 64)
  float* weight;          // (inputs, 64), added to
  float* bias;            // (64), added to; null: not wanted
  float* drive;           // dL/da itself, dense; null: not wanted
  const Events* wanted;   // the neurons below that want an error; null: none
  float* below;           // their errors in the order of (t, neuron), added to
};

// Rows of dL/dW for inputs with `count` events each; K is that number, or 0 for any.
template <int K> const uint32_t* add_to_rows(const Sinks& to, const uint32_t* list, ByInput::Class c) {
  const int events = K ? K : c.events;
  for (int32_t n = 0; n < c.inputs; n++) {
    float* row = to.weight + int64_t(*list++) * kLanes;
    Block sum = Block::load(row);
    for (int i = 0; i < events; i++) {
      const float* kap = to.kap + int64_t(*list++) * kLanes;
#pragma GCC unroll 16
      for (int v = 0; v < kRegisters; v++) sum.v[v] = sum.v[v] + Lanes::load(kap + v * kWide);
    }
    sum.store(row);
  }
  return list;
}

// dL/da of the sweep that begins at step `first` into dL/dW.
inline void sweep(const Sinks& to, int64_t first) {
  const int64_t i = first / kSweep;
  const uint32_t* list = to.sorted.list.data() + to.sorted.list_at[i];
  for (int32_t k = to.sorted.class_at[i]; k < to.sorted.class_at[i + 1]; k++) {
    const ByInput::Class c = to.sorted.classes[k];
    switch (c.events) {
      case 1: list = add_to_rows<1>(to, list, c); break;
      case 2: list = add_to_rows<2>(to, list, c); break;
      case 3: list = add_to_rows<3>(to, list, c); break;
      case 4: list = add_to_rows<4>(to, list, c); break;
      default: list = add_to_rows<0>(to, list, c);
    }
  }
}

SNN_BOTH void add_to(float* sum, const Block& kap) {
#pragma GCC unroll 16
  for (int v = 0; v < kRegisters; v++) (Lanes::load(sum + v * kWide) + kap.v[v]).store(sum + v * kWide);
}

// dL/da of step t to where it goes.
template <bool Sorted> SNN_BOTH void take(const Part& p, const Sinks& to, int64_t t, const Block& kap) {
  if (to.bias) add_to(to.bias, kap);
  if (to.drive) {
    float* row = to.drive + t * p.stride;
    ask_ahead<true>(row, p, t);
    kap.store(row, p.lanes);
  }
  if (to.wanted)
    for (int32_t i = to.wanted->start[t]; i < to.wanted->start[t + 1]; i++) {
      const float* row = p.weight + int64_t(to.wanted->index[i]) * kLanes;
      Lanes sum = Lanes::load(row) * kap.v[0];
#pragma GCC unroll 16
      for (int v = 1; v < kRegisters; v++) sum = sum + Lanes::load(row + v * kWide) * kap.v[v];
      to.below[i] += total(sum);
    }
  if constexpr (Sorted) {
    kap.store(to.kap + t % kSweep * kLanes);
    if (t % kSweep == 0) sweep(to, t);
  } else {
    for (const int32_t *i = to.events.begin(t), *end = to.events.end(t); i != end; ++i)
      add_to(to.weight + int64_t(*i) * kLanes, kap);
  }
}

struct Credit {
  Slope slope;
  Surrogate<float> surrogate;
  bool kept;  // whether the gradient sees the reset's spike
};

// sigma'(U - theta) of n membranes; writes whole registers.
template <Slope S> void slopes_of(const float* U, int64_t n, float theta, const Surrogate<float>& f, float* to) {
  const Surrogate<Lanes> wide{Lanes(f.inverse_width), Lanes(f.peak), Lanes(f.within)};
  for (int64_t i = 0; i < n; i += kWide) slope_at<S>(Lanes::load(U + i) - Lanes(theta), wide).store(to + i);
}
inline void slopes(const Credit& c, const float* U, int64_t n, float theta, float* to) {
  switch (c.slope) {
    case Slope::PiecewiseLinear: return slopes_of<Slope::PiecewiseLinear>(U, n, theta, c.surrogate, to);
    case Slope::FastSigmoid: return slopes_of<Slope::FastSigmoid>(U, n, theta, c.surrogate, to);
    case Slope::Exponential: return slopes_of<Slope::Exponential>(U, n, theta, c.surrogate, to);
    case Slope::Boxcar: return slopes_of<Slope::Boxcar>(U, n, theta, c.surrogate, to);
    case Slope::Sigmoid: return slopes_of<Slope::Sigmoid>(U, n, theta, c.surrogate, to);
    case Slope::ArcTan: return slopes_of<Slope::ArcTan>(U, n, theta, c.surrogate, to);
    case Slope::Gaussian: return slopes_of<Slope::Gaussian>(U, n, theta, c.surrogate, to);
    case Slope::Straight: return slopes_of<Slope::Straight>(U, n, theta, c.surrogate, to);
  }
}

// The recursion between two steps: lam and kap of the step after.
struct Later { Block lam, kap; };

// One step back. U, s and I_next as in lif.h's c, s_before in its q.
template <Reset G> SNN_BOTH void back(Later& x, int v, Lanes e, Lanes f, Lanes U, Lanes s, Lanes I_next, Lanes s_before,
                                      Lanes kept, const Constants<Lanes>& k) {
  const Partials<Lanes> d = unbounded_partials<G>(U, s, I_next, k);
  x.lam.v[v] = f * e + (d.U + kept * d.s * f) * x.lam.v[v];
  Lanes del = x.lam.v[v];
  if constexpr (G == Reset::ToZeroWithInput) del = (Lanes(1.0f) - s_before) * del;
  x.kap.v[v] = del + k.alpha * x.kap.v[v];
}

// What is carried from one chunk of steps to the one before, (3, 64): lam, kap, and the first I of the chunk after.
constexpr int64_t kCarried = 3 * kLanes;

// The membranes of one chunk made again; row 0 is what was before it.
struct History {
  alignas(64) float I[(kChunk + 1) * kLanes], U[(kChunk + 1) * kLanes], f[kChunk * kLanes];
};

template <Reset R, Fire F> void again(const Events& in, const Part& p, int64_t first, int64_t n, History& h) {
  const Constants<Lanes> k = everywhere(p.k);
  const float* c = p.checkpoints + first / kChunk * 2 * kLanes;
  Moment x{Block::load(c), Block::load(c + kLanes)};
  x.I.store(h.I);
  x.U.store(h.U);
  for (int64_t t = 0; t < n; t++) {
    step<R, F>(x, current(p, in.begin(t), in.end(t)), k);
    const int64_t row = (t + 1) * kLanes;
    if constexpr (R == Reset::ToZeroWithInput) x.I.store(h.I + row);
    x.U.store(h.U + row);
  }
}

// Back through the n steps of the chunk that begins at step `first`. error: dense dL/ds, from there on. R and F are the
// neuron's; G is the reset that the gradient sees, R or None.
template <Reset R, Fire F, Reset G>
void exact_chunk(const Part& p, const Credit& c, int64_t first, int64_t n, const float* error, const Sinks& to, History& h,
                 float* carried) {
  const Constants<Lanes> k = everywhere(p.k);
  const Lanes kept(c.kept ? 1.0f : 0.0f), one(1.0f);
  ask_last<false>(error, p, n);
  if (to.drive) ask_last<true>(to.drive, p, n);
  again<R, F>(to.events, p, first, n, h);
  slopes(c, h.U + kLanes, n * kLanes, p.k.theta, h.f);
  Later x{Block::load(carried), Block::load(carried + kLanes)};
  Block I_next = Block::load(carried + 2 * kLanes);
  for (int64_t t = n - 1; t >= 0; t--) {
    const float *row = error + t * p.stride, *f = h.f + t * kLanes, *U = h.U + (t + 1) * kLanes;
    ask_ahead<false>(row, p, t);
    const Block e = Block::load(row, p.lanes);
#pragma GCC unroll 16
    for (int v = 0; v < kRegisters; v++) {
      const Lanes here = Lanes::load(U + v * kWide), before = Lanes::load(U + v * kWide - kLanes);
      back<G>(x, v, e.v[v], Lanes::load(f + v * kWide), here, fire<F>(here, k.theta, one), I_next.v[v],
              fire<F>(before, k.theta, one), kept, k);
      if constexpr (G == Reset::ToZeroWithInput) I_next.v[v] = Lanes::load(h.I + (U - h.U) + v * kWide);
    }
    take<false>(p, to, t, x.kap);
  }
  x.lam.store(carried);
  x.kap.store(carried + kLanes);
  I_next.store(carried + 2 * kLanes);
}

// The same for a readout: the output is U, there is no reset, and nothing of the forward pass is looked at.
inline void readout_chunk(const Part& p, int64_t n, const float* error, const Sinks& to, float* carried) {
  const Constants<Lanes> k = everywhere(p.k);
  const Lanes zero(0.0f);
  ask_last<false>(error, p, n);
  if (to.drive) ask_last<true>(to.drive, p, n);
  Later x{Block::load(carried), Block::load(carried + kLanes)};
  for (int64_t t = n - 1; t >= 0; t--) {
    const float* row = error + t * p.stride;
    ask_ahead<false>(row, p, t);
    const Block e = Block::load(row, p.lanes);
#pragma GCC unroll 16
    for (int v = 0; v < kRegisters; v++) back<Reset::None>(x, v, e.v[v], Lanes(1.0f), zero, zero, zero, zero, zero, k);
    take<false>(p, to, t, x.kap);
  }
  x.lam.store(carried);
  x.kap.store(carried + kLanes);
}

// Errors and membranes at near neurons only.
struct Sparse {
  const uint64_t *near, *spikes;  // at t * words
  const float* error;             // in the order of (t, neuron): all blocks of a step together
  int64_t* cursor;                // [t]: the next of them; moved on by this block
  const float *U, *f;             // of this block, in the order of (t, neuron); one past the last
};

template <Reset G, bool Sorted> void sparse_block(const Part& p, const Credit& c, Sparse from, const Sinks& to) {
  static_assert(G != Reset::ToZeroWithInput, "its derivative looks at I, which is not kept");
  const Constants<Lanes> k = everywhere(p.k);
  const Lanes kept(c.kept ? 1.0f : 0.0f), zero(0.0f);
  Later x{Block::all(0.0f), Block::all(0.0f)};
  Block U = Block::all(0.0f), s = Block::all(0.0f);
  for (int64_t t = p.steps - 1; t >= 0; t--) {
    const uint64_t near = from.near[t * p.words];
    const int n = count_bits(near);
    from.U -= n;
    from.f -= n;
    const Block e = expand(from.error + from.cursor[t], near), f = expand(from.f, near);
    from.cursor[t] += n;
    if constexpr (G == Reset::ToZero) {
      U = expand(from.U, near);
      s = ones_at(from.spikes[t * p.words]);
    }
#pragma GCC unroll 16
    for (int v = 0; v < kRegisters; v++) back<G>(x, v, e.v[v], f.v[v], U.v[v], s.v[v], zero, zero, kept, k);
    take<Sorted>(p, to, t, x.kap);
  }
}

}  // namespace snn::events
