// torch.ops.snnlearn.events_*: what is declared, and the forward pass. Nothing is written but the results. Samples run on
// all cores, and no result depends on how many those are.
#include <torch/library.h>

#include "event_layer.h"

namespace snn::events {
// events_backward.cpp
std::tuple<Tensor, Tensor, Tensor, Tensor> events_backward(
    const Tensor& spikes, const Tensor& weight, const MaybeTensor& bias, const MaybeTensor& error,
    const MaybeTensor& checkpoints, const MaybeTensor& values, const MaybeTensor& near, const MaybeTensor& near_U,
    const MaybeTensor& fired, const MaybeTensor& below, int64_t wanted, int64_t outputs, at::ArrayRef<double> numbers,
    at::IntArrayRef kinds, bool drive, const MaybeTensor& down);

namespace {
// (outputs, inputs) by blocks of 64 outputs: (blocks, inputs, 64), padded with zeros.
Tensor events_blocks(const Tensor& weight_) {
  TORCH_CHECK_TYPE(weight_.scalar_type() == at::kFloat, "weight must be float32, got ", weight_.scalar_type());
  TORCH_CHECK_VALUE(weight_.dim() == 2 && weight_.numel() > 0, "weight must be (outputs, inputs), got ", weight_.sizes());
  const Tensor weight = weight_.contiguous();
  const int64_t outputs = weight.size(0), inputs = weight.size(1), blocks = words_of(outputs);
  Tensor result = at::empty({blocks, inputs, kLanes}, weight.options());
  const float* W = weight.const_data_ptr<float>();
  float* to = result.data_ptr<float>();
  at::parallel_for(0, blocks, 1, [&](int64_t block, int64_t end) {
    constexpr int64_t tile = 16;
    for (; block < end; block++)
      for (int64_t i0 = 0; i0 < inputs; i0 += tile)
        for (int64_t j = 0; j < kLanes; j++) {
          const int64_t n = std::min(tile, inputs - i0), o = block * kLanes + j;
          float* column = to + (block * inputs + i0) * kLanes + j;
          for (int64_t i = 0; i < n; i++) column[i * kLanes] = o < outputs ? W[o * inputs + i0 + i] : 0.0f;
        }
  });
  return result;
}

// numbers: alpha, beta, theta, within. kinds: reset, fire.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> events_forward(
    const Tensor& spikes, const Tensor& weight, const MaybeTensor& bias, int64_t outputs, at::ArrayRef<double> numbers,
    at::IntArrayRef kinds, bool near, bool checkpoints) {
  const Layer n(spikes, weight, bias, outputs, numbers);
  TORCH_CHECK_VALUE(numbers.size() == 4 && kinds.size() == 2, "four numbers and two kinds are wanted");
  check_neuron(kinds[0], kinds[1]);
  const auto kind = Fire(kinds[1]);
  const bool readout = kind == Fire::Analog;
  near = near && !readout, checkpoints = checkpoints && !readout;
  const auto nothing = [&](auto type) { return at::empty({0}, spikes.options().dtype(type)); };
  const auto bits = [&](bool wanted) {
    return wanted ? at::empty({n.steps, n.batch, n.blocks}, spikes.options()) : nothing(at::kLong);
  };
  Tensor out = bits(!readout), close = bits(near);
  Tensor U = readout ? BufferPool::get().empty({n.steps, n.batch, outputs}, weight.options()) : nothing(at::kFloat);
  // with near neurons checkpoints are most often thrown away at once, and then the pool need not keep them
  const std::vector<int64_t> sizes{n.batch, n.blocks, chunks_of(n.steps), 2, kLanes};
  Tensor saved = !checkpoints ? nothing(at::kFloat)
                 : near       ? at::empty(sizes, weight.options())
                              : BufferPool::get().empty(sizes, weight.options());
  float* points = checkpoints ? saved.data_ptr<float>() : nullptr;
  float* membrane = readout ? U.data_ptr<float>() : nullptr;
  std::vector<std::vector<float>> lists(near ? n.batch : 0);
  const int64_t group = std::clamp<int64_t>(n.batch / at::get_num_threads(), 1, kGroup);
  at::parallel_for(0, (n.batch + group - 1) / group, 1, [&](int64_t first, int64_t end) {
    const FlushDenormals flush;
    std::vector<Events> events(group);
    Rows in(n.steps, n.in_words), fired(readout ? 0 : n.steps, n.blocks), active(near ? n.steps : 0, n.blocks);
    for (first *= group, end = std::min(n.batch, end * group); first < end; first += group) {
      const int64_t samples = std::min(group, end - first);
      in.gather(spikes, first, samples);
      fired.make(samples);
      active.make(samples);
      for (int64_t i = 0; i < samples; i++) events[i].unpack(in.of(i), n.steps, n.in_words);
      for (int64_t block = 0; block < n.blocks; block++)  // outside, so that its weights stay in the cache
        for (int64_t i = 0; i < samples; i++) {
          const Part part = n.part(first + i, block, points);
          Found found{nullptr, nullptr, float(numbers[3]), nullptr, nullptr};
          if (readout) {
            found.U = membrane + (first + i) * outputs + block * kLanes;
            forward_block<Reset::None, Fire::Analog>(events[i], part, found);
            continue;
          }
          found.spikes = fired.of(i) + block;
          if (near) found.near = active.of(i) + block, found.near_U = &lists[first + i];
          with_neuron(Reset(kinds[0]), kind,
                      [&](auto R, auto F) { forward_block<R.value, F.value>(events[i], part, found); });
        }
      if (!readout) fired.scatter(out, first, samples);
      if (near) active.scatter(close, first, samples);
      for (int64_t b = first; near && b < first + samples; b++) lists[b].shrink_to_fit();
    }
  });
  if (!near) return {out, close, nothing(at::kFloat), U, saved};
  int64_t size = 0;
  for (const auto& list : lists) size += int64_t(list.size());
  Tensor near_U = at::empty({size}, weight.options());
  float* to = near_U.data_ptr<float>();
  for (const auto& list : lists) to = std::copy(list.begin(), list.end(), to);
  return {out, close, near_U, U, saved};
}

// drive (T, B, N) times weight (N, inputs): the error of every neuron below.
Tensor events_down(const Tensor& drive, const Tensor& weight) {
  TORCH_CHECK_VALUE(drive.dim() == 3 && weight.dim() == 2 && drive.size(2) == weight.size(0), "drive (T, B, N) and weight (N, ",
                    "inputs) do not fit: ", drive.sizes(), ", ", weight.sizes());
  Tensor result = BufferPool::get().empty({drive.size(0) * drive.size(1), weight.size(1)}, drive.options());
  at::mm_out(result, drive.flatten(0, 1), weight);
  return result.view({drive.size(0), drive.size(1), weight.size(1)});
}

}  // namespace
}  // namespace snn::events

TORCH_LIBRARY_FRAGMENT(snnlearn, m) {
  m.def("events_blocks(Tensor weight) -> Tensor");
  m.def("events_forward(Tensor spikes, Tensor weight, Tensor? bias, SymInt outputs, float[] numbers, int[] kinds, bool near, "
        "bool checkpoints) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("events_backward(Tensor spikes, Tensor weight, Tensor? bias, Tensor? error, Tensor? checkpoints, Tensor? values, "
        "Tensor? near, Tensor? near_U, Tensor? fired, Tensor? below, SymInt wanted, SymInt outputs, float[] numbers, "
        "int[] kinds, bool drive, Tensor? down=None) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("events_down(Tensor drive, Tensor weight) -> Tensor");
}

TORCH_LIBRARY_IMPL(snnlearn, CPU, m) {
  m.impl("events_blocks", &snn::events::events_blocks);
  m.impl("events_forward", &snn::events::events_forward);
  m.impl("events_backward", &snn::events::events_backward);
  m.impl("events_down", &snn::events::events_down);
}
