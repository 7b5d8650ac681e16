// The CUDA twin of events.h: linear and the neurons behind it, driven by events. Layouts are those of events.h: bits
// (T, B, words), weights (blocks, inputs, 64), checkpoints of I and U every 64 steps (B, blocks, chunks, 2, 64).
//
// A block of 64 threads is one sample and one block of outputs, a thread an output, its state in registers over all
// steps. All threads see the same events, so they never part; each event adds one row of 64 neighbouring weights.
//
// Backward, dL/da goes through memory as a dense array (T, B, N), which a GPU writes faster than it could add rows of
// dL/dW from many blocks. dL/dW is then summed by blocks that each own their part of it: no atomics, and the same bits
// in every run.
#include "launch.cuh"

namespace snn {

constexpr int kLanes = 64;  // outputs of a block, bits of a word
constexpr int kChunk = 64;  // steps between checkpoints
constexpr int kRows = 4;    // rows of dL/da asked for before the first is used
constexpr unsigned kThreads = 256;

inline int64_t words_of(int64_t n) { return (n + kLanes - 1) / kLanes; }
SNN_BOTH int64_t chunks_of(int64_t steps) { return (steps + kChunk - 1) / kChunk; }

// In cuda.py's driver stands the same struct; the order of the fields is part of the interface.
struct EventLayer {
  int64_t steps, batch, inputs, outputs;
  const uint64_t* in;            // (T, B, words)
  const float *weight, *bias;    // bias (blocks, 64), or null
  float* checkpoints;            // null: not wanted
  float alpha, beta, theta, within;
  int32_t reset, fire;
};

// What the forward pass leaves; each may be null. Words are written as halves, one a warp.
struct EventForward {
  uint32_t *spikes, *near;  // (T, B, blocks) words
  float* U;                 // (T, B, N)
};

// Either `error`, dense (T, B, N), or the errors at near neurons and their membranes, packed: `values` in the order of
// (b, t, neuron) and near_U in that of (b, block, t, lane). The offsets say where each word's numbers begin.
struct EventReverse {
  const float *error, *values, *near_U;
  const uint64_t *near, *fired;                 // (T, B, blocks)
  const int64_t *values_offset, *near_U_offset; // (B, T, blocks) and (B, blocks, T)
  float* out;                                   // dL/da, (T, B, N)
  float inverse_width, peak, within;
  int32_t slope, seen, padding;
};

// Bit j set: neuron j of this word.
SNN_BOTH bool has(uint64_t word, int j) { return word >> j & 1; }
__device__ __forceinline__ int rank(uint64_t word, int j) { return __popcll(word & ((uint64_t(1) << j) - 1)); }

// fire_of for one spike a step: the division that counts several costs registers.
SNN_BOTH float fired(bool exceed, float U, float theta) {
  return exceed ? fire<Fire::Exceed>(U, theta, 1.0f) : fire<Fire::Reach>(U, theta, 1.0f);
}

// a[n] of one output: bias and the rows of the inputs that spike, in rising order.
__device__ __forceinline__ float current(const uint64_t* row, int words, const float* column, float bias) {
  float a = bias;
  for (int w = 0; w < words; w++)
    for (uint64_t x = row[w]; x; x &= x - 1) a += column[(int64_t(w) * kLanes + __ffsll(x) - 1) * kLanes];
  return a;
}

// Where a thread stands.
struct Place {
  int64_t b, n;  // sample and output
  int block, lane, blocks, words;
  bool exists;   // outputs that fill up the last block do not
  Constants<float> k;
  const float* column;
  float bias;
};

__device__ __forceinline__ Place place_of(const EventLayer& p) {
  const int block = int(blockIdx.y), lane = int(threadIdx.x);
  const int64_t n = int64_t(block) * kLanes + lane;
  return {int64_t(blockIdx.x), n, block, lane, int(gridDim.y), int((p.inputs + kLanes - 1) / kLanes), n < p.outputs,
          {p.alpha, p.beta, p.theta}, p.weight + int64_t(block) * p.inputs * kLanes + lane, p.bias ? p.bias[n] : 0.0f};
}

template <Reset R> __global__ void __launch_bounds__(kLanes) events_forward_kernel(const EventLayer p, const EventForward g) {
  const Place here = place_of(p);
  const Fire fires = Fire(p.fire);
  const bool analog = fires == Fire::Analog, exceed = fires == Fire::Exceed;
  float I = 0, U = 0, s = 0;
  for (int64_t t = 0; t < p.steps; t++) {
    if (p.checkpoints && t % kChunk == 0) {
      float* c = p.checkpoints + ((here.b * here.blocks + here.block) * chunks_of(p.steps) + t / kChunk) * 2 * kLanes;
      c[here.lane] = I;
      c[kLanes + here.lane] = U;
    }
    const int64_t row = t * p.batch + here.b;
    I = here.k.alpha * I + current(p.in + row * here.words, here.words, here.column, here.bias);
    U = membrane<R, Bound::None>(U, s, I, here.k, 0.0f);
    if (g.U && here.exists) g.U[row * p.outputs + here.n] = U;
    if (analog) continue;
    s = fired(exceed, U, here.k.theta);
    const int64_t half = (row * here.blocks + here.block) * 2 + here.lane / 32;
    __syncwarp();  // the loops above are the same for all, which the compiler cannot know
    const uint32_t spikes = __ballot_sync(0xffffffffu, here.exists && s != 0.0f);
    const uint32_t near = __ballot_sync(0xffffffffu, here.exists && absolute(U - here.k.theta) < p.within);
    if (here.lane % 32 == 0) {
      if (g.spikes) g.spikes[half] = spikes;
      if (g.near) g.near[half] = near;
    }
  }
}

// lam[n] = f e[n] + (dU + dU/ds f) lam[n+1], kap[n] = q lam[n] + alpha kap[n+1], as in lif.h.
struct Later { float lam, kap; };

template <Reset R>
SNN_BOTH void back(Later& x, bool ignored, bool kept, float e, float f, float U, float s, float I_next, float s_before,
                   const Constants<float>& k) {
  const Partials<float> d = ignored ? unbounded_partials<Reset::None>(U, s, I_next, k) : unbounded_partials<R>(U, s, I_next, k);
  x.lam = f * e + (kept ? d.U + d.s * f : d.U) * x.lam;
  const float q = R == Reset::ToZeroWithInput && !ignored ? 1.0f - s_before : 1.0f;
  x.kap = q * x.lam + k.alpha * x.kap;
}

// With a dense error. The membranes of a chunk are made again from its checkpoint; row 0 is what was before it.
template <Reset R> __global__ void __launch_bounds__(kLanes) events_exact_kernel(const EventLayer p, const EventReverse g) {
  constexpr bool keeps_I = R == Reset::ToZeroWithInput;
  __shared__ float membranes[(kChunk + 1) * kLanes];
  __shared__ float currents[keeps_I ? (kChunk + 1) * kLanes : 1];
  const Place here = place_of(p);
  const Fire fires = Fire(p.fire);
  const bool analog = fires == Fire::Analog, exceed = fires == Fire::Exceed;
  const bool ignored = Seen(g.seen) == Seen::Ignored, kept = Seen(g.seen) == Seen::Kept;
  const Surrogate<float> surrogate = {g.inverse_width, g.peak, g.within};
  const float theta = here.k.theta;
  float* const own = membranes + here.lane;  // no thread looks at another's, so none has to wait
  Later x = {0, 0};
  float I_next = 0;
  for (int64_t first = (chunks_of(p.steps) - 1) * kChunk; first >= 0; first -= kChunk) {
    const int64_t left = p.steps - first;
    const int steps = int(left < kChunk ? left : kChunk);
    if (!analog) {
      const float* c = p.checkpoints + ((here.b * here.blocks + here.block) * chunks_of(p.steps) + first / kChunk) * 2 * kLanes;
      float I = c[here.lane], U = c[kLanes + here.lane], s = first ? fired(exceed, U, theta) : 0.0f;
      own[0] = U;
      for (int t = 0; t < steps; t++) {
        const int64_t row = (first + t) * p.batch + here.b;
        I = here.k.alpha * I + current(p.in + row * here.words, here.words, here.column, here.bias);
        U = membrane<R, Bound::None>(U, s, I, here.k, 0.0f);
        s = fired(exceed, U, theta);
        own[(t + 1) * kLanes] = U;
        if constexpr (keeps_I) currents[(t + 1) * kLanes + here.lane] = I;
      }
    }
    for (int t = steps - 1; t >= 0; t--) {
      const int64_t i = ((first + t) * p.batch + here.b) * p.outputs + here.n;
      const float e = here.exists ? g.error[i] : 0.0f;
      if (analog) {
        back<Reset::None>(x, true, false, e, 1.0f, 0.0f, 0.0f, 0.0f, 0.0f, here.k);
      } else {
        const float U = own[(t + 1) * kLanes], distance[1] = {U - theta};
        float f[1];
        slopes_of(distance, Slope(g.slope), surrogate, f);
        const float s_before = first + t ? fired(exceed, own[t * kLanes], theta) : 0.0f;
        back<R>(x, ignored, kept, e, f[0], U, fired(exceed, U, theta), I_next, s_before, here.k);
        if constexpr (keeps_I) I_next = currents[(t + 1) * kLanes + here.lane];
      }
      if (here.exists) g.out[i] = x.kap;
    }
  }
}

// With errors at near neurons only: f is zero elsewhere, and nothing is made again.
template <Reset R> __global__ void __launch_bounds__(kLanes) events_sparse_kernel(const EventLayer p, const EventReverse g) {
  const Place here = place_of(p);
  const bool ignored = Seen(g.seen) == Seen::Ignored, kept = Seen(g.seen) == Seen::Kept;
  const Surrogate<float> surrogate = {g.inverse_width, g.peak, g.within};
  Later x = {0, 0};
  for (int64_t t = p.steps - 1; t >= 0; t--) {
    const int64_t word = (t * p.batch + here.b) * here.blocks + here.block;
    const uint64_t near = g.near[word];
    float e = 0, f = 0, U = 0;
    if (has(near, here.lane)) {
      const int i = rank(near, here.lane);
      e = g.values[g.values_offset[(here.b * p.steps + t) * here.blocks + here.block] + i];
      U = g.near_U[g.near_U_offset[(here.b * here.blocks + here.block) * p.steps + t] + i];
      const float distance[1] = {U - here.k.theta};
      float found[1];
      slopes_of(distance, Slope(g.slope), surrogate, found);
      f = found[0];
    }
    const float s = has(g.fired[word], here.lane) ? 1.0f : 0.0f;
    back<R>(x, ignored, kept, e, f, U, s, 0.0f, 0.0f, here.k);
    if (here.exists) g.out[(t * p.batch + here.b) * p.outputs + here.n] = x.kap;
  }
}

// The rows of dL/dW of one word of inputs, one block of outputs, and one part of all (t, b): (parts, blocks, inputs, 64).
// A thread adds to its own column only.
__global__ void __launch_bounds__(kLanes) events_weight_kernel(const uint64_t* in, const float* drive, float* to, int64_t rows,
                                                               int64_t inputs, int64_t outputs) {
  __shared__ float sums[kLanes * kLanes];
  const int64_t words = gridDim.x, parts = gridDim.z, part = blockIdx.z, n = int64_t(blockIdx.y) * kLanes + threadIdx.x;
  float* const own = sums + threadIdx.x;
  const bool exists = n < outputs;
  for (int i = 0; i < kLanes; i++) own[i * kLanes] = 0.0f;
  const int64_t last = rows * (part + 1) / parts;
  for (int64_t first = rows * part / parts; first < last; first += kRows) {
    uint64_t bits[kRows];
    float kap[kRows];
#pragma unroll
    for (int j = 0; j < kRows; j++) {
      const bool inside = exists && first + j < last;
      bits[j] = inside ? in[(first + j) * words + blockIdx.x] : 0;
      kap[j] = bits[j] ? drive[(first + j) * outputs + n] : 0.0f;
    }
#pragma unroll
    for (int j = 0; j < kRows; j++)
      for (uint64_t x = bits[j]; x; x &= x - 1) own[(__ffsll(x) - 1) * kLanes] += kap[j];
  }
  const int64_t i0 = int64_t(blockIdx.x) * kLanes;
  float* const row = to + ((part * gridDim.y + blockIdx.y) * inputs + i0) * kLanes + threadIdx.x;
  for (int i = 0; i < kLanes && i0 + i < inputs; i++) row[i * kLanes] = own[i * kLanes];
}

// W^T dL/da at the wanted neurons below, a warp for each word of them: numbers in the order of (b, t, neuron).
__global__ void __launch_bounds__(kThreads) events_below_kernel(const uint64_t* wanted, const int64_t* offset,
                                                                const float* weight, const float* drive, float* to,
                                                                int64_t steps, int64_t batch, int64_t inputs,
                                                                int64_t outputs) {
  const int64_t words = (inputs + kLanes - 1) / kLanes, index = int64_t(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (index >= steps * batch * words) return;  // a whole warp
  const int64_t row = index / words, w = index % words, t = row / batch, b = row % batch;
  const int lane = int(threadIdx.x % 32);
  float* place = to + offset[(b * steps + t) * words + w];
  for (uint64_t x = wanted[index]; x; x &= x - 1, place++) {
    const int64_t i = w * kLanes + __ffsll(x) - 1;
    float sum = 0;
    for (int64_t n = lane; n < outputs; n += 32)
      sum += weight[((n / kLanes) * inputs + i) * kLanes + n % kLanes] * drive[row * outputs + n];
    for (int distance = 16; distance; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    if (lane == 0) *place = sum;
  }
}

// Membranes at near neurons, from the dense array to the packed one.
__global__ void __launch_bounds__(kThreads) events_gather_kernel(const uint64_t* near, const int64_t* offset, const float* U,
                                                                 float* to, int64_t steps, int64_t batch, int64_t outputs) {
  const int64_t blocks = (outputs + kLanes - 1) / kLanes, index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t word = index / kLanes, row = word / blocks, block = word % blocks, t = row / batch, b = row % batch;
  const int lane = int(index % kLanes);
  if (row >= steps * batch || !has(near[word], lane)) return;
  to[offset[(b * blocks + block) * steps + t] + rank(near[word], lane)] = U[row * outputs + block * kLanes + lane];
}

__global__ void __launch_bounds__(kThreads) events_count_kernel(const uint64_t* bits, int64_t* to, int64_t n) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) to[i] = __popcll(bits[i]);
}

inline unsigned grid_of(int64_t threads) { return unsigned((threads + kThreads - 1) / kThreads); }
inline dim3 grid_of(const EventLayer& p) { return dim3(unsigned(p.batch), unsigned(words_of(p.outputs))); }
inline bool wrong(const EventLayer& p) {
  return p.steps < 1 || p.batch < 1 || p.inputs < 1 || p.outputs < 1 || p.fire < 0 || p.fire > 3 || Fire(p.fire) == Fire::Count;
}

}  // namespace snn

extern "C" {

// Each returns a cudaError_t, 0 for none.
int snn_events_forward(const snn::EventLayer* p, const snn::EventForward* g, void* stream) {
  if (snn::wrong(*p)) return snn::kInvalid;
  return snn::with_reset(p->reset, [&](auto R) {
    return snn::launch(snn::events_forward_kernel<decltype(R)::value>, snn::grid_of(*p), snn::kLanes, stream, *p, *g);
  });
}

int snn_events_reverse(const snn::EventLayer* p, const snn::EventReverse* g, void* stream) {
  if (snn::wrong(*p) || g->slope < 0 || g->slope > 7 || g->seen < 0 || g->seen > 2) return snn::kInvalid;
  const bool sparse = g->error == nullptr, ignored = snn::Seen(g->seen) == snn::Seen::Ignored;
  if (sparse && (snn::Fire(p->fire) == snn::Fire::Analog || (snn::Reset(p->reset) == snn::Reset::ToZeroWithInput && !ignored)))
    return snn::kInvalid;  // a readout has no near neurons; that reset's derivative looks at I, which is not kept
  return snn::with_reset(p->reset, [&](auto R) {
    const auto kernel = sparse ? snn::events_sparse_kernel<decltype(R)::value> : snn::events_exact_kernel<decltype(R)::value>;
    return snn::launch(kernel, snn::grid_of(*p), snn::kLanes, stream, *p, *g);
  });
}

int snn_events_weight(const uint64_t* in, const float* drive, float* to, int64_t rows, int64_t inputs, int64_t outputs,
                      int64_t parts, void* stream) {
  const dim3 grid(unsigned(snn::words_of(inputs)), unsigned(snn::words_of(outputs)), unsigned(parts));
  return snn::launch(snn::events_weight_kernel, grid, snn::kLanes, stream, in, drive, to, rows, inputs, outputs);
}

int snn_events_below(const uint64_t* wanted, const int64_t* offset, const float* weight, const float* drive, float* to,
                     int64_t steps, int64_t batch, int64_t inputs, int64_t outputs, void* stream) {
  const unsigned grid = snn::grid_of(steps * batch * snn::words_of(inputs) * 32);
  return snn::launch(snn::events_below_kernel, grid, snn::kThreads, stream, wanted, offset, weight, drive, to, steps, batch,
                     inputs, outputs);
}

int snn_events_gather(const uint64_t* near, const int64_t* offset, const float* U, float* to, int64_t steps, int64_t batch,
                      int64_t outputs, void* stream) {
  const unsigned grid = snn::grid_of(steps * batch * snn::words_of(outputs) * snn::kLanes);
  return snn::launch(snn::events_gather_kernel, grid, snn::kThreads, stream, near, offset, U, to, steps, batch, outputs);
}

int snn_events_count(const uint64_t* bits, int64_t* to, int64_t n, void* stream) {
  return n == 0 ? 0 : snn::launch(snn::events_count_kernel, snn::grid_of(n), snn::kThreads, stream, bits, to, n);
}

}
