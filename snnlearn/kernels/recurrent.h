// A recurrent LIF layer: a neuron's spike adds its row of V to the current of all neurons one step later.
//
//   I[t] = alpha * I[t-1] + (a[t] + V s[t-1])        U, s as in lif.h
//
// Forward, nothing is done for silence. Backward, the error flows against every connection, spike or not,
//
//   e[t] = dL/ds[t] + V^T kap[t+1]        lam, kap as in lif.h        dL/dV = sum_t kap[t+1] s[t]^T
//
// a product of (B, N) with (N, N) at each step, made here of tiles that stay in registers; or, where the slope is zero
// off the neurons near threshold, of one dot product for each of those. dL/dV is a sum over spikes in both cases.
//
// V is stored twice, its columns padded with zeros to a multiple of 64, the width: `out` (from, width) for spikes and
// dot products, `back` (width / 64, to, 64) for the product. A few samples (a group) run through time together, so that
// their state and V stay in the cache. The membrane is not kept: it is computed again backwards, from a checkpoint every
// kStride steps. Where the error is sparse, the membranes of near neurons are kept instead, and nothing is computed
// again.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>
#include "lanes.h"
#include "portable.h"
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace snn::recurrent {

constexpr int64_t kStride = 16;  // steps between checkpoints

// Samples in a group: as many as the registers hold the sums of.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kGroup = 8;
#else
constexpr int kGroup = 4;
#endif

// Floats that begin where a cache line begins: a register that straddles two costs two loads.
class Floats {
 public:
  explicit Floats(int64_t n) : lines_((n + 15) / 16) { fill(0.0f); }
  float* at(int64_t i) { return lines_.data()->x + i; }
  void fill(float value) { std::fill_n(at(0), 16 * lines_.size(), value); }

 private:
  struct Line { alignas(64) float x[16]; };
  std::vector<Line> lines_;
};

inline int64_t words_of(int64_t n) { return (n + kLanes - 1) / kLanes; }

// c + a * b in one rounding where the machine has it. For gradients only: spikes are those of separate roundings.
SNN_BOTH Lanes multiply_add(Lanes a, Lanes b, Lanes c) {
#if defined(__AVX512F__)
  return FloatVector(_mm512_fmadd_ps((__m512)a.x, (__m512)b.x, (__m512)c.x));
#elif defined(__AVX__) && defined(__FMA__)
  return FloatVector(_mm256_fmadd_ps((__m256)a.x, (__m256)b.x, (__m256)c.x));
#elif defined(__aarch64__)
  return FloatVector(vfmaq_f32((float32x4_t)c.x, (float32x4_t)a.x, (float32x4_t)b.x));
#else
  return c + a * b;
#endif
}

// The numbers of the set bits of `words` words; `to` has room for 64 * words + 4. Four are written whatever the count,
// and the surplus written over: the branch that asks for another one would be mispredicted once a word.
inline int32_t list(const uint64_t* bits, int64_t words, int32_t* to) {
  int32_t n = 0;
  for (int64_t k = 0; k < words; k++) {
    uint64_t x = bits[k];
    const int count = count_bits(x), base = int(kLanes * k);
    for (int i = 0; i < 4; i++, x &= x - 1) to[n + i] = base + first_bit(x | uint64_t(1) << 63);
    for (int i = 4; i < count; i++, x &= x - 1) to[n + i] = base + first_bit(x);
    n += count;
  }
  return n;
}

// Into the cache, for a step hence: no processor foresees a jump over the rest of the batch.
inline void ask_for(const float* x, int64_t n) {
  for (int64_t j = 0; j < n; j += 16) __builtin_prefetch(x + j);
}

// x[0..64) += the sum of some rows of 64, each at a multiple of `width`: it stays in registers.
SNN_BOTH void add_rows(float* x, const float* rows, int64_t width, const int32_t* i, const int32_t* end) {
  Block sum = Block::all(0.0f);
  for (; i != end; ++i)
    for (int v = 0; v < kRegisters; v++) sum.v[v] = sum.v[v] + Lanes::load(rows + *i * width + v * kWide);
  for (int v = 0; v < kRegisters; v++) (Lanes::load(x + v * kWide) + sum.v[v]).store(x + v * kWide);
}

// e[r][0..64) of `rows` samples = sum over j of kap[r][j] * block[j][0..64). The loops over samples must be unrolled,
// or the sums would lie in memory.
template <int rows> void product(float* e, const float* kap, const float* block, int64_t N, int64_t width) {
  for (int64_t l = 0; l < kLanes; l += 2 * kWide) {
    Lanes sum[rows][2];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = Lanes(0.0f);
    for (int64_t j = 0; j < N; j++) {
      const float* v = block + j * kLanes + l;
      ask_for(v + 8 * kLanes, 2 * kWide);
      const Lanes left = Lanes::load(v), right = Lanes::load(v + kWide);
#pragma GCC unroll 8
      for (int r = 0; r < rows; r++) {
        const Lanes k(kap[r * width + j]);
        sum[r][0] = multiply_add(k, left, sum[r][0]);
        sum[r][1] = multiply_add(k, right, sum[r][1]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
      sum[r][0].store(e + r * width + l);
      sum[r][1].store(e + r * width + l + kWide);
    }
  }
}

inline void product(int64_t rows, float* e, const float* kap, const float* block, int64_t N, int64_t width) {
  int64_t r = 0;
  for (; r + kGroup <= rows; r += kGroup) product<kGroup>(e + r * width, kap + r * width, block, N, width);
  if (r + 4 <= rows && kGroup > 4) product<4>(e + r * width, kap + r * width, block, N, width), r += 4;
  if (r + 2 <= rows) product<2>(e + r * width, kap + r * width, block, N, width), r += 2;
  if (r < rows) product<1>(e + r * width, kap + r * width, block, N, width);
}

inline float dot(const float* x, const float* y, int64_t width) {
  Lanes sum[2] = {Lanes(0.0f), Lanes(0.0f)};
  for (int64_t j = 0; j < width; j += 2 * kWide)
    for (int v = 0; v < 2; v++)
      sum[v] = multiply_add(Lanes::load(x + j + v * kWide), Lanes::load(y + j + v * kWide), sum[v]);
  return total(sum[0] + sum[1]);
}

// The arithmetic of lif.h over one sample's `width` neurons; `in` holds a[t] + V s[t-1]. Spikes as bits, and those
// with |U - theta| < within as bits in `near`, if that is not null.
template <Reset R, Fire F>
void advance(float* U, float* I, const float* in, int64_t width, const Constants<float>& p, uint64_t* spikes,
             uint64_t* near, float within) {
  const Constants<Lanes> k{p.alpha, p.beta, p.theta};
  const Lanes none(0.0f), one(1.0f);
  for (int64_t j = 0; j < width; j += kLanes) {
    uint64_t fired = 0, close = 0;
#pragma GCC unroll 16
    for (int v = 0; v < kRegisters; v++) {
      const int64_t at = j + v * kWide;
      const Lanes U0 = Lanes::load(U + at), s = fire<F>(U0, k.theta, one);
      const Lanes current = k.alpha * Lanes::load(I + at) + Lanes::load(in + at);
      const Lanes U1 = membrane<R, Bound::None>(U0, s, current, k, none);
      current.store(I + at);
      U1.store(U + at);
      fired |= above<F == Fire::Reach>(U1, k.theta) << (v * kWide);
      close |= above<false>(Lanes(within), absolute(U1 - k.theta)) << (v * kWide);
    }
    if (spikes) spikes[j / kLanes] = fired;
    if (near) near[j / kLanes] = close;
  }
}

template <Slope S> void slopes(float* f, const float* U, int64_t width, float theta, const Surrogate<float>& p) {
  const Surrogate<Lanes> surrogate{p.inverse_width, p.peak, p.within};
  for (int64_t j = 0; j < width; j += kWide) slope_at<S>(Lanes::load(U + j) - Lanes(theta), surrogate).store(f + j);
}

// lam[t] and kap[t] in place of lam[t+1] and kap[t+1]. R is the reset that the gradient sees. No reset here looks at
// the current, so that c[t] is known at step t.
template <Reset R, Fire F, bool kept>
void retreat(float* lam, float* kap, const float* e, const float* f, const float* U, int64_t width,
             const Constants<float>& p) {
  const Constants<Lanes> k{p.alpha, p.beta, p.theta};
  const Lanes none(0.0f), one(1.0f);
  for (int64_t j = 0; j < width; j += kWide) {
    const Lanes u = Lanes::load(U + j), slope = Lanes::load(f + j);
    const Partials<Lanes> d = partials<R, Bound::None>(u, fire<F>(u, k.theta, one), none, k, none);
    const Lanes carry = kept ? d.U + slope * d.s : d.U;
    const Lanes l = slope * Lanes::load(e + j) + carry * Lanes::load(lam + j);
    l.store(lam + j);
    (l + k.alpha * Lanes::load(kap + j)).store(kap + j);
  }
}

using Advance = void (*)(float*, float*, const float*, int64_t, const Constants<float>&, uint64_t*, uint64_t*, float);
using Slopes = void (*)(float*, const float*, int64_t, float, const Surrogate<float>&);
using Retreat = void (*)(float*, float*, const float*, const float*, const float*, int64_t, const Constants<float>&);

struct Layer {
  int64_t steps, batch, N;
  Constants<float> constants;
  const float* a;     // (T, B, N)
  const float* out;   // (N, width): V^T
  uint64_t* spikes;   // (T, B, blocks)
  float* checkpoint;  // (ceil(T / kStride), B, 2, 64 * blocks): U and I before the step; or null
  uint64_t* near;     // like spikes: the neurons with |U - theta| < within; or null
  float within;
  std::vector<float>* near_U;  // for each sample, its near neurons' membranes in the order of (t, neuron); or null
  Advance advance;

  int64_t blocks() const { return words_of(N); }
  int64_t width() const { return kLanes * blocks(); }
  float* saved(int64_t t, int64_t b) const { return checkpoint + (t / kStride * batch + b) * 2 * width(); }
};

// One group's samples, (kGroup, width), and room to list events in.
struct Group {
  Floats U, I, in;
  std::vector<int32_t> event;

  explicit Group(const Layer& n) : U(kGroup * n.width()), I(kGroup * n.width()), in(n.width()), event(n.width() + 4) {}

  // U[t] and I[t] of sample b, which stands in row r; `to` and `near` are where bits go, or null.
  const float* step(const Layer& n, int64_t t, int64_t b, int64_t r, uint64_t* to, uint64_t* near) {
    const int64_t row = t * n.batch + b, blocks = n.blocks();
    std::memcpy(in.at(0), n.a + row * n.N, size_t(n.N) * sizeof(float));
    const int32_t count = t ? list(n.spikes + (row - n.batch) * blocks, blocks, event.data()) : 0;
    if (count)
      for (int64_t j = 0; j < n.width(); j += kLanes)
        add_rows(in.at(j), n.out + j, n.width(), event.data(), event.data() + count);
    float* u = U.at(r * n.width());
    n.advance(u, I.at(r * n.width()), in.at(0), n.width(), n.constants, to, near, n.within);
    const uint64_t exist = ~uint64_t(0) >> (blocks * kLanes - n.N);  // of the last word
    if (to) to[blocks - 1] &= exist;
    if (near) near[blocks - 1] &= exist;
    return u;
  }
};

// Appends the values whose bits are set.
inline void keep(const float* values, const uint64_t* bits, int64_t blocks, std::vector<float>& list) {
  int64_t count = 0;
  for (int64_t k = 0; k < blocks; k++) count += count_bits(bits[k]);
  const size_t before = list.size();
  if (list.capacity() < before + count + kWide) list.reserve(2 * (before + count + kWide));
  list.resize(before + count + kWide);  // room for what `compress` writes too many
  float* to = list.data() + before;
  for (int64_t k = 0; k < blocks; k++)
    if (bits[k]) to = compress(Block::load(values + k * kLanes), bits[k], to);
  list.resize(before + count);
}

// One group through time. False if a membrane ends as no finite number: then a current was none, for neither NaN nor
// infinity ever leaves a membrane.
inline bool forward(const Layer& n, int64_t first, int64_t end, Group& g) {
  const int64_t width = n.width(), blocks = n.blocks();
  g.U.fill(0.0f);
  g.I.fill(0.0f);
  for (int64_t t = 0; t < n.steps; t++)
    for (int64_t b = first; b < end; b++) {
      const int64_t r = b - first, row = t * n.batch + b;
      if (t + 1 < n.steps) ask_for(n.a + (row + n.batch) * n.N, n.N);
      if (n.checkpoint && t % kStride == 0) {
        std::memcpy(n.saved(t, b), g.U.at(r * width), width * sizeof(float));
        std::memcpy(n.saved(t, b) + width, g.I.at(r * width), width * sizeof(float));
      }
      const float* U = g.step(n, t, b, r, n.spikes + row * blocks, n.near ? n.near + row * blocks : nullptr);
      if (n.near_U) keep(U, n.near + row * blocks, blocks, n.near_U[b]);
    }
  float sum = 0;
  for (int64_t j = 0; j < (end - first) * width; j++) sum += *g.U.at(j) * 0.0f;
  return sum == 0.0f;
}

// Where errors come from and gradients go.
struct Gradients {
  const float* error;       // dL/ds, (T, B, N); or null, where it is given at near neurons only:
  const float* near_error;  // in the order of (b, t, neuron)
  const float* near_U;      // in the same order; or null, and there are checkpoints
  const int64_t* offset;    // (B, T): where those of (b, t) begin
  bool sparse;              // a dot product for each near neuron rather than the whole product
  const float* back;        // (blocks, N, 64): V
  float* kap;               // dL/da, (T, B, N)
  float* V;                 // (N, width), like `out`, added to
  Surrogate<float> surrogate;
  Slopes slopes;
  Retreat retreat;
};

// Where the values of (b, t) begin in a list of all set bits in the order of (b, t, neuron); at the end, their number.
inline std::vector<int64_t> offsets(const uint64_t* bits, const Layer& n) {
  std::vector<int64_t> result(1, 0);
  result.reserve(n.batch * n.steps + 1);
  for (int64_t b = 0; b < n.batch; b++)
    for (int64_t t = 0; t < n.steps; t++) {
      int64_t sum = result.back();
      for (int64_t k = 0; k < n.blocks(); k++) sum += count_bits(bits[(t * n.batch + b) * n.blocks() + k]);
      result.push_back(sum);
    }
  return result;
}

// One group back through time.
class Reverse {
 public:
  Reverse(const Layer& n, const Gradients& d)
      : n(n), d(d), width(n.width()), g(n), past(kStride * kGroup * width), lam(kGroup * width), kap(kGroup * width),
        e(kGroup * width), f(width), wanted(width + 4), start(width + 1), spike(kStride * kGroup * width) {}

  void run(int64_t first, int64_t end) {
    lam.fill(0.0f);
    kap.fill(0.0f);
    e.fill(0.0f);
    for (int64_t from = (n.steps - 1) / kStride * kStride; from >= 0; from -= kStride) {
      const int64_t to = std::min(n.steps, from + kStride);
      d.sparse ? recall(first, end, from, to) : again(first, end, from, to);
      for (int64_t t = to - 1; t >= from; t--) {
        if (!d.sparse)
          for (int64_t k = 0; k < n.blocks(); k++)
            product(end - first, e.at(k * kLanes), kap.at(0), d.back + k * n.N * kLanes, n.N, width);
        for (int64_t b = first; b < end; b++) sample(t, b, b - first, place(t - from, b - first));
      }
      learn(first, end, from, to);
    }
  }

 private:
  const Layer& n;
  const Gradients& d;
  const int64_t width;
  Group g;
  Floats past;  // (kStride, kGroup, width): U of these steps, and then kap in its place
  Floats lam, kap, e, f;
  std::vector<int32_t> wanted, start, spike;

  float* place(int64_t step, int64_t r) { return past.at((step * kGroup + r) * width); }

  // The membranes of steps from .. to again, from their checkpoint.
  void again(int64_t first, int64_t end, int64_t from, int64_t to) {
    const size_t bytes = width * sizeof(float);
    for (int64_t b = first; b < end; b++) {
      std::memcpy(g.U.at((b - first) * width), n.saved(from, b), bytes);
      std::memcpy(g.I.at((b - first) * width), n.saved(from, b) + width, bytes);
    }
    for (int64_t t = from; t < to; t++)
      for (int64_t b = first; b < end; b++) {
        if (t + 1 < to) ask_for(n.a + ((t + 1) * n.batch + b) * n.N, n.N);
        std::memcpy(place(t - from, b - first), g.step(n, t, b, b - first, nullptr, nullptr), bytes);
      }
  }

  // Near neurons' membranes of steps from .. to. The others get one that is not near, and fires as theirs did.
  void recall(int64_t first, int64_t end, int64_t from, int64_t to) {
    const Lanes low(n.constants.theta - 2 * n.within), rise(4 * n.within), one(1.0f);
    for (int64_t t = from; t < to; t++)
      for (int64_t b = first; b < end; b++) {
        const float* given = d.near_U + d.offset[b * n.steps + t];
        for (int64_t k = 0; k < n.blocks(); k++) {
          const int64_t word = (t * n.batch + b) * n.blocks() + k;
          const Block U = expand(given, n.near[word]), near = ones_at(n.near[word]), fired = ones_at(n.spikes[word]);
          float* row = place(t - from, b - first) + k * kLanes;
          for (int v = 0; v < kRegisters; v++)
            (U.v[v] + (one - near.v[v]) * (low + rise * fired.v[v])).store(row + v * kWide);
          given += count_bits(n.near[word]);
        }
      }
  }

  // One step back of sample b, which stands in row r and had the membranes U.
  void sample(int64_t t, int64_t b, int64_t r, float* U) {
    const int64_t row = t * n.batch + b;
    float *error = e.at(r * width), *k = kap.at(r * width);
    const int32_t many = n.near ? list(n.near + row * n.blocks(), n.blocks(), wanted.data()) : 0;
    const float* given = d.error ? d.error + row * n.N : d.near_error + d.offset[b * n.steps + t];
    if (d.sparse)
      for (int32_t i = 0; i < many; i++) error[wanted[i]] = dot(n.out + wanted[i] * width, k, width);
    if (!d.error || d.sparse)
      for (int32_t i = 0; i < many; i++) error[wanted[i]] += given[d.error ? wanted[i] : i];
    else
      for (int64_t j = 0; j < n.N; j++) error[j] += given[j];
    if (t > 0 && d.error) ask_for(d.error + (row - n.batch) * n.N, n.N);
    d.slopes(f.at(0), U, width, n.constants.theta, d.surrogate);
    d.retreat(lam.at(r * width), k, error, f.at(0), U, width, n.constants);
    if (d.sparse)
      for (int32_t i = 0; i < many; i++) error[wanted[i]] = 0.0f;
    std::memcpy(U, k, width * sizeof(float));
    stream_copy(d.kap + row * n.N, k, n.N);
  }

  // dL/dV of steps from .. to. Spikes are sorted by neuron first, so that each row is read and written once.
  void learn(int64_t first, int64_t end, int64_t from, int64_t to) {
    std::fill(start.begin(), start.end(), 0);
    const auto each = [&](auto&& visit) {
      for (int64_t t = std::max<int64_t>(from, 1); t < to; t++)
        for (int64_t b = first; b < end; b++) {
          const int32_t count = list(n.spikes + ((t - 1) * n.batch + b) * n.blocks(), n.blocks(), g.event.data());
          for (int32_t i = 0; i < count; i++) visit(g.event[i], int32_t((t - from) * kGroup + b - first));
        }
    };
    each([&](int32_t i, int32_t) { start[i + 1]++; });
    for (int64_t i = 0; i < width; i++) start[i + 1] += start[i];
    each([&](int32_t i, int32_t place) { spike[start[i]++] = place; });  // start[i] is now where i ends
    for (int64_t j = 0; j < width; j += kLanes)
      for (int64_t i = 0; i < n.N; i++) {
        const int32_t begin = i ? start[i - 1] : 0;
        if (begin < start[i])
          add_rows(d.V + i * width + j, past.at(j), width, spike.data() + begin, spike.data() + start[i]);
      }
  }
};

}  // namespace snn::recurrent
