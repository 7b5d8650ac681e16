// torch.ops.snnlearn.events_backward. Sums over samples are made in parts whose number does not depend on that of the
// threads, so results do not either. Dense errors are gone through 64 steps of all samples at a time, sparse ones sample
// by sample.
#include <memory>

#include "event_layer.h"

namespace snn::events {
namespace {

constexpr int64_t kPartBytes = int64_t(8) << 20;  // of the partial sums of dL/dW, together
constexpr int64_t kParts = 8;
constexpr int64_t kSorted = 8;  // blocks from which it is worth it to sort events by input; measured

// The sum of (parts, blocks, inputs, 64) over the parts, as (outputs, inputs).
Tensor from_blocks(const Tensor& parts, int64_t outputs, int64_t inputs) {
  const int64_t blocks = words_of(outputs), size = blocks * inputs * kLanes, count = parts.size(0);
  const float* sums = parts.const_data_ptr<float>();
  Tensor result = at::empty({outputs, inputs}, at::kFloat);
  float* to = result.data_ptr<float>();
  at::parallel_for(0, blocks, 1, [&](int64_t block, int64_t end) {
    alignas(64) float row[kLanes];
    for (; block < end; block++)
      for (int64_t i = 0; i < inputs; i++) {
        const float* from = sums + (block * inputs + i) * kLanes;
        Block sum = Block::load(from);
        for (int64_t part = 1; part < count; part++)
          for (int v = 0; v < kRegisters; v++) sum.v[v] = sum.v[v] + Lanes::load(from + part * size + v * kWide);
        sum.store(row);
        const int64_t lanes = std::min<int64_t>(kLanes, outputs - block * kLanes);
        for (int64_t j = 0; j < lanes; j++) to[(block * kLanes + j) * inputs + i] = row[j];
      }
  });
  return result;
}

// What the backward pass of a layer is given. A dense error, and for neurons that fire checkpoints; or `values` of the
// `near` neurons, their membranes and the layer's spikes. `below`: the neurons that want an error.
struct Given {
  const float *error = nullptr, *checkpoints = nullptr, *values = nullptr, *near_U = nullptr;
  Tensor spikes, near, fired, below;
  std::vector<int64_t> own_from, below_from;  // where a sample's values begin
  Credit credit;
  Reset reset;
  Fire fire;
  bool ignored;  // the reset, by the gradient
  bool sparse;   // not told by pointers: of an array of no values it is null
};

// Where the sums of one part go: dL/dW (blocks, inputs, 64) and dL/dbias (blocks, 64); and what all parts share.
struct Results {
  float *weight, *bias, *drive, *below;
};

// The samples first .. first + count - 1 of a dense error, kChunk steps at a time, from the last to the first.
class DensePart {
 public:
  DensePart(const Layer& n, const Given& g, int64_t first, int64_t count)
      : n(n), g(g), first_(first), in_(kChunk, n.in_words), below_(kChunk, n.in_words), events_(count), wanted_(count),
        carried_(count * n.blocks * kCarried, 0.0f), below_at_(&g.below_from[first + 1], &g.below_from[first + 1] + count) {}

  // to.drive begins at step t.
  void run(int64_t t, const Results& to) {
    const int64_t steps = std::min(kChunk, n.steps - t), count = int64_t(events_.size());
    in_.gather(g.spikes, first_, count, t);
    if (g.below.defined()) below_.gather(g.below, first_, count, t);
    for (int64_t i = 0; i < count; i++) {
      events_[i].unpack(in_.of(i), steps, n.in_words);
      if (!g.below.defined()) continue;
      wanted_[i].unpack(below_.of(i), steps, n.in_words);
      below_at_[i] -= wanted_[i].start[steps];
    }
    for (int64_t block = 0; block < n.blocks; block++)  // outside, so that its weights stay in the cache
      for (int64_t i = 0; i < count; i++) {
        const int64_t b = first_ + i, column = b * n.outputs + block * kLanes;
        const Part p = n.part(b, block, const_cast<float*>(g.checkpoints));
        const float* error = g.error + t * p.stride + column;
        float* carried = &carried_[(i * n.blocks + block) * kCarried];
        const Sinks sinks{events_[i], unsorted_, nullptr, to.weight + block * n.inputs * kLanes,
                          n.bias ? to.bias + block * kLanes : nullptr, to.drive ? to.drive + column : nullptr,
                          g.below.defined() ? &wanted_[i] : nullptr, to.below + below_at_[i]};
        if (g.fire == Fire::Analog) readout_chunk(p, steps, error, sinks, carried);
        else with_neuron(g.reset, g.fire, [&](auto R, auto F) {
          const auto go = g.ignored ? &exact_chunk<R.value, F.value, Reset::None> : &exact_chunk<R.value, F.value, R.value>;
          go(p, g.credit, t, steps, error, sinks, history_, carried);
        });
      }
  }

 private:
  const Layer& n;
  const Given& g;
  int64_t first_;
  Rows in_, below_;
  std::vector<Events> events_, wanted_;
  std::vector<float> carried_;
  std::vector<int64_t> below_at_;  // where the errors below of the steps from the present chunk on begin
  ByInput unsorted_;
  History history_;
};

// One sample of a sparse error.
struct Sample {
  Events events, wanted;
  ByInput sorted;
  std::vector<float> U, f;      // membranes and slopes of near neurons
  std::vector<int64_t> cursor;  // [t]: the next of `values`
  int64_t done = 0;             // near neurons of the blocks before
};

// Up to kGroup samples of a sparse error.
class SparseGroup {
 public:
  SparseGroup(const Layer& n, const Given& g)
      : n(n), g(g), in_(n.steps, n.in_words), below_(n.steps, n.in_words), near_(n.steps, n.blocks),
        fired_(n.steps, n.blocks), samples_(kGroup), kap_(kSweep * kLanes), sorts_(n.blocks >= kSorted) {}

  void run(int64_t first, int64_t count, const Results& to) {
    unpack(first, count);
    for (int64_t block = 0; block < n.blocks; block++)  // outside, so that its weights stay in the cache
      for (int64_t i = 0; i < count; i++) {
        const int64_t b = first + i;
        Sample& x = samples_[i];
        const Sinks sinks{x.events, x.sorted, kap_.data(), to.weight + block * n.inputs * kLanes,
                          n.bias ? to.bias + block * kLanes : nullptr,
                          to.drive ? to.drive + b * n.outputs + block * kLanes : nullptr,
                          g.below.defined() ? &x.wanted : nullptr, to.below + g.below_from[b]};
        x.done += count_of(near_.of(i) + block, n.steps, n.blocks);
        back(n.part(b, block, nullptr), {near_.of(i) + block, fired_.of(i) + block, g.values, x.cursor.data(), &x.U[x.done],
                                         &x.f[x.done]}, sinks);
      }
  }

 private:
  void unpack(int64_t first, int64_t count) {
    in_.gather(g.spikes, first, count);
    near_.gather(g.near, first, count);
    fired_.gather(g.fired, first, count);
    if (g.below.defined()) below_.gather(g.below, first, count);
    for (int64_t i = 0; i < count; i++) {
      Sample& x = samples_[i];
      x.events.unpack(in_.of(i), n.steps, n.in_words);
      if (sorts_) x.sorted.sort(x.events, n.steps, n.inputs);
      if (g.below.defined()) x.wanted.unpack(below_.of(i), n.steps, n.in_words);
      int64_t at = g.own_from[first + i];
      const int64_t size = g.own_from[first + i + 1] - at;
      x.U.assign(size + kWide, 0.0f);
      x.f.resize(size + kWide);
      std::copy_n(g.near_U + at, size, x.U.begin());
      slopes(g.credit, x.U.data(), size, n.k.theta, x.f.data());
      x.cursor.resize(n.steps);
      for (int64_t t = 0; t < n.steps; t++) x.cursor[t] = at, at += count_of(near_.of(i) + t * n.blocks, n.blocks);
      x.done = 0;
    }
  }

  void back(const Part& p, const Sparse& from, const Sinks& to) const {
    const auto go = [&](auto G) {
      if (sorts_) sparse_block<G.value, true>(p, g.credit, from, to);
      else sparse_block<G.value, false>(p, g.credit, from, to);
    };
    switch (g.ignored ? Reset::None : g.reset) {
      case Reset::Subtract: return go(Is<Reset::Subtract>{});
      case Reset::SubtractDecayed: return go(Is<Reset::SubtractDecayed>{});
      case Reset::ToZero: return go(Is<Reset::ToZero>{});
      default: return go(Is<Reset::None>{});
    }
  }

  const Layer& n;
  const Given& g;
  Rows in_, below_, near_, fired_;
  std::vector<Sample> samples_;
  std::vector<float> kap_;
  const bool sorts_;
};

// Where the values of each sample begin, in the order of (b, t, neuron).
std::vector<int64_t> starts(const Tensor& bits, const Layer& n, int64_t count, int64_t total, const char* name) {
  check(bits, at::kLong, {n.steps, n.batch, count}, name);
  std::vector<int64_t> from(n.batch + 1, 0);
  for (int64_t t = 0; t < n.steps; t++)
    for (int64_t b = 0; b < n.batch; b++) from[b + 1] += count_of(words(bits) + (t * n.batch + b) * count, count);
  for (int64_t b = 0; b < n.batch; b++) from[b + 1] += from[b];
  TORCH_CHECK_VALUE(from[n.batch] == total, name, " has ", from[n.batch], " bits set, and there are ", total, " values");
  return from;
}

}  // namespace

// numbers: alpha, beta, theta, 1 / width, peak, within. kinds: reset, fire, slope, seen. See `Given`; `wanted` is how
// many bits of `below` are set. Returns dL/dW, dL/dbias; dL/da (T, B, N) with `drive`, or with `down`, the weights
// (N, inputs), dL/da times them, the error of every neuron below; and the errors of `below` in the order of (b, t, neuron).
std::tuple<Tensor, Tensor, Tensor, Tensor> events_backward(
    const Tensor& spikes, const Tensor& weight, const MaybeTensor& bias, const MaybeTensor& error_,
    const MaybeTensor& checkpoints, const MaybeTensor& values_, const MaybeTensor& near, const MaybeTensor& near_U,
    const MaybeTensor& fired, const MaybeTensor& below, int64_t wanted, int64_t outputs, at::ArrayRef<double> numbers,
    at::IntArrayRef kinds, bool drive, const MaybeTensor& down) {
  const Layer n(spikes, weight, bias, outputs, numbers);
  TORCH_CHECK_VALUE(numbers.size() == 6 && kinds.size() == 4, "six numbers and four kinds are wanted");
  check_neuron(kinds[0], kinds[1]);
  TORCH_CHECK_VALUE(kinds[2] >= 0 && kinds[2] <= int(Slope::Straight) && kinds[3] >= 0 && kinds[3] <= int(Seen::Ignored),
                    "unknown slope or reset of the gradient");
  TORCH_CHECK_VALUE(values_.has_value() != error_.has_value(), "either a dense error or values at near neurons are wanted");
  Given g;
  g.spikes = spikes, g.reset = Reset(kinds[0]), g.fire = Fire(kinds[1]), g.ignored = Seen(kinds[3]) == Seen::Ignored;
  g.sparse = values_.has_value();
  g.credit = {Slope(kinds[2]), {float(numbers[3]), float(numbers[4]), float(numbers[5])}, Seen(kinds[3]) == Seen::Kept};
  Tensor error, values;
  if (values_) {
    TORCH_CHECK_VALUE(g.fire != Fire::Analog && near && near_U && fired, "values belong to near neurons and their membranes");
    TORCH_CHECK_VALUE(g.reset != Reset::ToZeroWithInput || g.ignored, "this reset has no sparse gradient");
    check(*values_, at::kFloat, {values_->numel()}, "values", false);
    check(*near_U, at::kFloat, {values_->numel()}, "near_U");
    check(*fired, at::kLong, {n.steps, n.batch, n.blocks}, "fired");
    values = values_->contiguous();
    g.values = values.const_data_ptr<float>(), g.near_U = near_U->const_data_ptr<float>();
    g.near = *near, g.fired = *fired, g.own_from = starts(*near, n, n.blocks, values.numel(), "near");
  } else {
    check(*error_, at::kFloat, {n.steps, n.batch, outputs}, "error", false);
    error = error_->contiguous();
    g.error = error.const_data_ptr<float>();
    if (g.fire != Fire::Analog) {
      TORCH_CHECK_VALUE(checkpoints, "the membrane is made again from checkpoints");
      check(*checkpoints, at::kFloat, {n.batch, n.blocks, chunks_of(n.steps), 2, kLanes}, "checkpoints");
      g.checkpoints = checkpoints->const_data_ptr<float>();
    }
  }
  TORCH_CHECK_VALUE(wanted >= 0, "wanted counts bits");
  g.below_from.assign(n.batch + 1, 0);
  if (below) g.below = *below, g.below_from = starts(*below, n, n.in_words, wanted, "below");

  TORCH_CHECK_VALUE(!(drive && down), "either dL/da is wanted or what it is for the neurons below");
  if (down) check(*down, at::kFloat, {outputs, n.inputs}, "down", false);

  const auto options = weight.options();
  const auto made = [&](at::IntArrayRef sizes) { return BufferPool::get().empty(sizes, options); };
  const Tensor at_near = at::zeros({below ? wanted : 0}, options);
  const int64_t kept = drive || (down && g.sparse) ? n.steps : std::min(kChunk, n.steps);  // steps of dL/da
  const Tensor kaps = drive || down ? made({kept, n.batch, outputs}) : at::empty({0}, options);
  Tensor dense = down ? made({n.steps * n.batch, n.inputs}) : drive ? kaps : at::empty({0}, options);
  const int64_t size = n.blocks * n.inputs * kLanes;
  const int64_t parts = std::min({n.batch, kParts, std::max<int64_t>(2, kPartBytes / int64_t(size * sizeof(float)))});
  const Tensor sums = made({parts, size}).zero_();
  std::vector<float> to_bias(parts * n.blocks * kLanes, 0.0f);
  // taken here: asking a tensor for a pointer to write to is nothing for several threads
  float *below_to = at_near.data_ptr<float>(), *sum = sums.data_ptr<float>();
  float* kap_to = drive || down ? kaps.data_ptr<float>() : nullptr;
  const auto results = [&](int64_t part) -> Results {
    return {sum + part * size, &to_bias[part * n.blocks * kLanes], kap_to, below_to};
  };
  const auto begin = [&](int64_t part) { return n.batch * part / parts; };
  const auto multiply = [&](int64_t t, int64_t steps) {
    Tensor rows = dense.narrow(0, t * n.batch, steps * n.batch);
    at::mm_out(rows, kaps.narrow(0, 0, steps).view({steps * n.batch, outputs}), *down);
  };
  if (g.sparse) {
    at::parallel_for(0, parts, 1, [&](int64_t part, int64_t end) {
      const FlushDenormals flush;
      SparseGroup group(n, g);
      for (; part < end; part++)
        for (int64_t first = begin(part); first < begin(part + 1); first += kGroup)
          group.run(first, std::min(kGroup, begin(part + 1) - first), results(part));
    });
    if (down) multiply(0, n.steps);
  } else {
    std::vector<std::unique_ptr<DensePart>> all(parts);
    for (int64_t t = (chunks_of(n.steps) - 1) * kChunk; t >= 0; t -= kChunk) {
      at::parallel_for(0, parts, 1, [&](int64_t part, int64_t end) {
        const FlushDenormals flush;
        for (; part < end; part++) {
          if (!all[part]) all[part] = std::make_unique<DensePart>(n, g, begin(part), begin(part + 1) - begin(part));
          Results to = results(part);
          if (drive) to.drive += t * n.batch * outputs;
          all[part]->run(t, to);
        }
      });
      if (down) multiply(t, std::min(kChunk, n.steps - t));
    }
  }
  if (down) dense = dense.view({n.steps, n.batch, n.inputs});
  Tensor bias_sum = at::zeros({outputs}, options);
  float* to = bias_sum.data_ptr<float>();
  for (int64_t part = 0; part < parts; part++)
    for (int64_t j = 0; j < outputs; j++) to[j] += to_bias[part * n.blocks * kLanes + j];
  return {from_blocks(sums, outputs, n.inputs), bias_sum, dense, at_near};
}

}  // namespace snn::events
