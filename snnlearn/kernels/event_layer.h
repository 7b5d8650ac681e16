// A layer as the ops for events see it: what arrives is checked, and bits are brought into the order of the kernels.
#pragma once
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <limits>

#include "events.h"
#include "pool.h"

namespace snn::events {

using at::Tensor;
using MaybeTensor = std::optional<Tensor>;

constexpr int64_t kGroup = 8;  // samples whose bits are visited together

inline void check(const Tensor& x, at::ScalarType type, at::IntArrayRef sizes, const char* name, bool contiguous = true) {
  TORCH_CHECK_TYPE(x.scalar_type() == type, name, " must be ", type, ", got ", x.scalar_type());
  TORCH_CHECK_VALUE(x.sizes() == sizes, name, " must have shape ", sizes, ", got ", x.sizes());
  TORCH_CHECK_VALUE(!contiguous || x.is_contiguous(), name, " must be contiguous");
}
inline const uint64_t* words(const Tensor& x) { return static_cast<const uint64_t*>(x.const_data_ptr()); }
inline uint64_t* words_to(Tensor& x) { return static_cast<uint64_t*>(x.data_ptr()); }

// A layer's sizes and arrays.
struct Layer {
  int64_t steps, batch, inputs, outputs, in_words, blocks;
  Constants<float> k;
  const uint64_t* in;
  const float *weight, *bias;

  Layer(const Tensor& spikes, const Tensor& W, const MaybeTensor& b, int64_t outputs, at::ArrayRef<double> numbers)
      : outputs(outputs), blocks(words_of(outputs)) {
    TORCH_CHECK_VALUE(numbers.size() >= 3, "alpha, beta and theta are wanted");
    TORCH_CHECK_VALUE(spikes.dim() == 3 && W.dim() == 3, "spikes must be (T, B, words), weights (blocks, inputs, 64)");
    steps = spikes.size(0), batch = spikes.size(1), in_words = spikes.size(2), inputs = W.size(1);
    TORCH_CHECK_VALUE(steps > 0 && batch > 0 && outputs > 0 && in_words == words_of(inputs),
                      "spikes (T, B, words) hold words of 64 inputs, at least one step and sample; got ", spikes.sizes(),
                      " for ", inputs, " inputs");
    TORCH_CHECK_VALUE(steps < std::numeric_limits<int32_t>::max() / (in_words * kLanes), "too many steps for this many inputs");
    check(spikes, at::kLong, spikes.sizes(), "spikes");
    check(W, at::kFloat, {blocks, inputs, kLanes}, "weight");
    if (b) check(*b, at::kFloat, {blocks, kLanes}, "bias");
    k = {float(numbers[0]), float(numbers[1]), float(numbers[2])};
    in = words(spikes), weight = W.const_data_ptr<float>(), bias = b ? b->const_data_ptr<float>() : nullptr;
  }

  Part part(int64_t b, int64_t block, float* checkpoints) const {
    return {steps, k, weight + block * inputs * kLanes, bias ? bias + block * kLanes : nullptr,
            std::min<int64_t>(kLanes, outputs - block * kLanes), blocks, batch * outputs,
            checkpoints ? checkpoints + (b * blocks + block) * chunks_of(steps) * 2 * kLanes : nullptr};
  }
};

// The bits of neighbouring samples at some steps, (sample, step, words), out of and into (T, B, words). Many samples are
// visited at a time: one sample's words lie a page apart, often a multiple of 4096 bytes, which is slow in every cache.
class Rows {
 public:
  Rows(int64_t steps, int64_t words) : steps_(steps), words_(words) {}

  void gather(const Tensor& bits, int64_t first, int64_t samples, int64_t t = 0) {
    data_.resize(samples * steps_ * words_);
    const uint64_t* from = words(bits) + (t * bits.size(1) + first) * words_;
    const int64_t n = std::min(steps_, bits.size(0) - t), step = bits.size(1) * words_;
    for (int64_t i = 0; i < n; i++, from += step)
      for (int64_t k = 0; k < words_; k++)
        for (int64_t b = 0; b < samples; b++) data_[(b * steps_ + i) * words_ + k] = from[b * words_ + k];
  }
  void make(int64_t samples) { data_.resize(samples * steps_ * words_); }
  void scatter(Tensor& bits, int64_t first, int64_t samples) const {
    uint64_t* to = words_to(bits) + first * words_;
    for (int64_t t = 0, step = bits.size(1) * words_; t < steps_; t++, to += step)
      for (int64_t k = 0; k < words_; k++)
        for (int64_t b = 0; b < samples; b++) to[b * words_ + k] = data_[(b * steps_ + t) * words_ + k];
  }
  uint64_t* of(int64_t b) { return data_.data() + b * steps_ * words_; }

 private:
  int64_t steps_, words_;
  std::vector<uint64_t> data_;
};

inline int64_t count_of(const uint64_t* bits, int64_t n, int64_t stride = 1) {
  int64_t sum = 0;
  for (int64_t i = 0; i < n; i++) sum += count_bits(bits[i * stride]);
  return sum;
}

template <auto V> using Is = std::integral_constant<decltype(V), V>;

// f(Is<R>, Is<F>) for a neuron that fires.
template <class F> void with_neuron(Reset reset, Fire fire, const F& f) {
  const auto fired = [&](auto r) { fire == Fire::Reach ? f(r, Is<Fire::Reach>{}) : f(r, Is<Fire::Exceed>{}); };
  switch (reset) {
    case Reset::Subtract: return fired(Is<Reset::Subtract>{});
    case Reset::SubtractDecayed: return fired(Is<Reset::SubtractDecayed>{});
    case Reset::ToZero: return fired(Is<Reset::ToZero>{});
    case Reset::ToZeroWithInput: return fired(Is<Reset::ToZeroWithInput>{});
    case Reset::None: return fired(Is<Reset::None>{});
  }
}
inline void check_neuron(int64_t reset, int64_t fire) {
  TORCH_CHECK_VALUE(reset >= 0 && reset <= int(Reset::None), "unknown reset ", reset);
  const bool fires = fire == int(Fire::Reach) || fire == int(Fire::Exceed);
  TORCH_CHECK_VALUE(fires || (fire == int(Fire::Analog) && reset == int(Reset::None)),
                    "a layer of events has at most one spike a step, or it is a readout without reset");
}

}  // namespace snn::events
