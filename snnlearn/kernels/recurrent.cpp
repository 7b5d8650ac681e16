// torch.ops.snnlearn.recurrent_forward, recurrent_reverse: checks, allocates, hands pointers to recurrent.h.
//   numbers  alpha, beta, theta, within                  kinds   Reset, Fire
//   slope    inverse_width, peak, within                 seen    Seen, Slope
#include <ATen/Parallel.h>
#include <torch/library.h>
#include <atomic>
#include "pool.h"
#include "recurrent.h"

namespace {
using at::Tensor;
using namespace snn;
using namespace snn::recurrent;

constexpr int64_t kParts = 16;  // the batch is cut into at most so many, whatever the number of threads

int64_t parts_of(int64_t batch) { return std::min(kParts, (batch + kGroup - 1) / kGroup); }

void check(const char* name, const Tensor& x, at::ScalarType type, at::IntArrayRef sizes) {
  TORCH_CHECK_VALUE(x.is_cpu() && x.scalar_type() == type && x.is_contiguous(), name,
                    " must be a contiguous CPU tensor of ", type, ", got ", x.scalar_type(), " on ", x.device());
  TORCH_CHECK_VALUE(x.sizes() == sizes, name, " must have shape ", sizes, ", got ", x.sizes());
}

template <Fire F> Advance advance_of(Reset reset) {
  switch (reset) {
    case Reset::Subtract: return &advance<Reset::Subtract, F>;
    case Reset::SubtractDecayed: return &advance<Reset::SubtractDecayed, F>;
    case Reset::ToZero: return &advance<Reset::ToZero, F>;
    case Reset::None: return &advance<Reset::None, F>;
    default: TORCH_CHECK_VALUE(false, "this reset has no recurrent kernel");
  }
}

template <Fire F, bool kept> Retreat retreat_of(Reset reset) {
  switch (reset) {
    case Reset::Subtract: return &retreat<Reset::Subtract, F, kept>;
    case Reset::SubtractDecayed: return &retreat<Reset::SubtractDecayed, F, kept>;
    case Reset::ToZero: return &retreat<Reset::ToZero, F, kept>;
    default: return &retreat<Reset::None, F, kept>;
  }
}

Slopes slopes_of(Slope slope) {
  switch (slope) {
    case Slope::PiecewiseLinear: return &slopes<Slope::PiecewiseLinear>;
    case Slope::FastSigmoid: return &slopes<Slope::FastSigmoid>;
    case Slope::Exponential: return &slopes<Slope::Exponential>;
    case Slope::Boxcar: return &slopes<Slope::Boxcar>;
    case Slope::Sigmoid: return &slopes<Slope::Sigmoid>;
    case Slope::ArcTan: return &slopes<Slope::ArcTan>;
    case Slope::Gaussian: return &slopes<Slope::Gaussian>;
    default: return &slopes<Slope::Straight>;
  }
}

// (N, N) in blocks of 64 columns: (blocks, N, 64), padded with zeros.
Tensor blocks_of(const Tensor& x) {
  const int64_t N = x.size(0), blocks = words_of(N);
  Tensor result = at::zeros({blocks, N, kLanes}, x.options());
  for (int64_t k = 0; k < blocks; k++) {
    const int64_t lanes = std::min<int64_t>(kLanes, N - k * kLanes);
    result.select(0, k).narrow(1, 0, lanes).copy_(x.narrow(1, k * kLanes, lanes));
  }
  return result;
}

// Keeps what `layer` points into. Where the current is only asked for its shape, it may be one number expanded.
struct Call {
  Tensor a, out;
  Layer layer;

  Call(const Tensor& a_, const Tensor& weight, at::ArrayRef<double> numbers, at::IntArrayRef kinds, bool shape_only)
      : a(shape_only ? a_ : a_.contiguous()) {
    TORCH_CHECK_VALUE(a.is_cpu() && a.scalar_type() == at::kFloat && a.dim() == 3 && a.numel() > 0,
                      "the current must be a CPU tensor of float32 (T, B, N), not empty, got ", a.scalar_type(), " ",
                      a.sizes());
    const int64_t T = a.size(0), B = a.size(1), N = a.size(2);
    const bool fits = weight.is_cpu() && weight.scalar_type() == at::kFloat && weight.sizes() == at::IntArrayRef({N, N});
    TORCH_CHECK_VALUE(fits, "the recurrent weight must be a CPU tensor of float32 [", N, ", ", N, "], got ",
                      weight.scalar_type(), " ", weight.sizes());
    TORCH_CHECK_VALUE(numbers.size() == 4 && kinds.size() == 2, "expected 4 numbers and 2 kinds");
    TORCH_CHECK_VALUE(kinds[1] == int(Fire::Reach) || kinds[1] == int(Fire::Exceed),
                      "a recurrent neuron fires once a step");
    out = at::zeros({N, words_of(N) * kLanes}, weight.options());
    out.narrow(1, 0, N).copy_(weight.t());
    const Reset reset = Reset(kinds[0]);
    layer = {T, B, N, {float(numbers[0]), float(numbers[1]), float(numbers[2])},
             shape_only ? nullptr : a.const_data_ptr<float>(),
             out.const_data_ptr<float>(), nullptr, nullptr, nullptr, float(numbers[3]), nullptr,
             Fire(kinds[1]) == Fire::Reach ? advance_of<Fire::Reach>(reset) : advance_of<Fire::Exceed>(reset)};
  }
  at::DimVector bits() const { return {layer.steps, layer.batch, layer.blocks()}; }
  at::DimVector checkpoints() const {
    return {(layer.steps + kStride - 1) / kStride, layer.batch, 2, layer.width()};
  }
};

uint64_t* words(const Tensor& x) { return reinterpret_cast<uint64_t*>(x.data_ptr<int64_t>()); }

// f(part, first, end) for each group of each part of the batch.
template <class F> void for_groups(int64_t batch, const F& f) {
  const int64_t parts = parts_of(batch);
  at::parallel_for(0, parts, 1, [&](int64_t part, int64_t last) {
    FlushDenormals guard;
    for (; part < last; part++) f(part, batch * part / parts, batch * (part + 1) / parts);
    stream_fence();
  });
}

// One after the other.
Tensor joined(const std::vector<std::vector<float>>& lists, const at::TensorOptions& options) {
  size_t sum = 0;
  for (const auto& list : lists) sum += list.size();
  Tensor result = at::empty({int64_t(sum)}, options);
  float* to = result.data_ptr<float>();
  for (const auto& list : lists) to = std::copy(list.begin(), list.end(), to);
  return result;
}

using Tensors4 = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// Spikes and near bits (T, B, words), near neurons' membranes in the order of (b, t, neuron), checkpoints. Near bits
// are empty unless asked for, the last two unless something is to be kept.
Tensors4 forward_op(const Tensor& a, const Tensor& weight, at::ArrayRef<double> numbers, at::IntArrayRef kinds, bool near,
                    bool keep) {
  Call call(a, weight, numbers, kinds, false);
  Layer& n = call.layer;
  const auto whole = a.options().dtype(at::kLong);
  Tensor spikes = at::empty(call.bits(), whole), close = at::empty(near ? call.bits() : at::DimVector{0}, whole);
  Tensor checkpoint = keep ? BufferPool::get().empty(call.checkpoints(), a.options()) : at::empty({0}, a.options());
  std::vector<std::vector<float>> near_U(near && keep ? n.batch : 0);
  n.spikes = words(spikes);
  n.near = near ? words(close) : nullptr;
  n.near_U = near_U.empty() ? nullptr : near_U.data();
  n.checkpoint = keep ? checkpoint.data_ptr<float>() : nullptr;
  std::atomic<bool> finite{true};
  for_groups(n.batch, [&](int64_t, int64_t first, int64_t end) {
    Group g(n);
    for (; first < end; first += kGroup)
      if (!forward(n, first, std::min(end, first + kGroup), g)) finite = false;
  });
  TORCH_CHECK_VALUE(finite, "the membrane grew to NaN or infinity; look at the current and the weights");
  return {spikes, close, joined(near_U, a.options()), checkpoint};
}

// dL/da (T, B, N) and dL/dV (N, N). The error is (T, B, N), or has one value for each near neuron in the order of
// (b, t, neuron). `saved` are checkpoints, or near neurons' membranes: then the recurrent error too is made for near
// neurons only, which are all that have a slope, and nobody looks at the values of a.
std::tuple<Tensor, Tensor> reverse_op(const Tensor& a, const Tensor& weight, const Tensor& spikes, const Tensor& near,
                                      const Tensor& saved, const Tensor& error_,
                                      at::ArrayRef<double> numbers, at::IntArrayRef kinds, at::ArrayRef<double> slope,
                                      at::IntArrayRef seen) {
  const bool masked = near.numel() > 0, sparse = saved.dim() == 1, listed = error_.dim() == 1;
  Call call(a, weight, numbers, kinds, sparse);
  Layer& n = call.layer;
  check("the spikes", spikes, at::kLong, call.bits());
  if (masked) check("the near neurons", near, at::kLong, call.bits());
  TORCH_CHECK_VALUE(masked || (!sparse && !listed), "a sparse error needs the near neurons");
  TORCH_CHECK_VALUE(slope.size() == 3 && seen.size() == 2 && seen[1] >= 0 && seen[1] <= int(Slope::Straight),
                    "expected 3 numbers and 2 kinds of the slope");
  const Tensor error = error_.contiguous();
  const std::vector<int64_t> offset = listed || sparse ? offsets(words(near), n) : std::vector<int64_t>();
  check("what was saved", saved, at::kFloat, sparse ? at::DimVector{offset.back()} : call.checkpoints());
  check("the error", error, at::kFloat, listed ? at::IntArrayRef({offset.back()}) : a.sizes());
  n.spikes = words(spikes);
  n.near = masked ? words(near) : nullptr;
  n.checkpoint = sparse ? nullptr : saved.data_ptr<float>();

  const Tensor back = blocks_of(weight);
  Tensor kap = BufferPool::get().empty(a.sizes(), a.options());
  const int64_t parts = parts_of(n.batch);
  Tensor grad = BufferPool::get().empty({parts, n.N, n.width()}, a.options()).zero_();
  const Reset reset = Seen(seen[0]) == Seen::Ignored ? Reset::None : Reset(kinds[0]);
  const bool kept = Seen(seen[0]) == Seen::Kept, reach = Fire(kinds[1]) == Fire::Reach;
  Gradients d{};
  (listed ? d.near_error : d.error) = error.const_data_ptr<float>();
  d.offset = offset.data();
  d.sparse = sparse;
  d.near_U = sparse ? saved.const_data_ptr<float>() : nullptr;
  d.back = back.const_data_ptr<float>();
  d.kap = kap.data_ptr<float>();
  d.surrogate = {float(slope[0]), float(slope[1]), float(slope[2])};
  d.slopes = slopes_of(Slope(seen[1]));
  d.retreat = kept ? (reach ? retreat_of<Fire::Reach, true>(reset) : retreat_of<Fire::Exceed, true>(reset))
                   : (reach ? retreat_of<Fire::Reach, false>(reset) : retreat_of<Fire::Exceed, false>(reset));
  for_groups(n.batch, [&](int64_t part, int64_t first, int64_t end) {
    Gradients mine = d;
    mine.V = grad.data_ptr<float>() + part * n.width() * n.N;
    Reverse reverse(n, mine);
    for (; first < end; first += kGroup) reverse.run(first, std::min(end, first + kGroup));
  });
  Tensor sum = grad[0];
  for (int64_t part = 1; part < parts; part++) sum.add_(grad[part]);
  return {kap, sum.narrow(1, 0, n.N).t().contiguous()};
}
}  // namespace

TORCH_LIBRARY_FRAGMENT(snnlearn, m) {
  m.def("recurrent_forward(Tensor a, Tensor weight, float[] numbers, int[] kinds, bool near, bool keep) -> "
        "(Tensor, Tensor, Tensor, Tensor)");
  m.def("recurrent_reverse(Tensor a, Tensor weight, Tensor spikes, Tensor near, Tensor saved, Tensor error, "
        "float[] numbers, int[] kinds, float[] slope, int[] seen) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(snnlearn, CPU, m) {
  m.impl("recurrent_forward", &forward_op);
  m.impl("recurrent_reverse", &reverse_op);
}
