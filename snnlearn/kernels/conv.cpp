// torch.ops.snnlearn.conv_forward, conv_reverse: checks, allocates, hands pointers to conv.h.
#include <ATen/Parallel.h>
#include <torch/library.h>
#include "conv.h"
#include "pool.h"

namespace {
using at::Tensor;
using MaybeTensor = std::optional<Tensor>;
using namespace snn;
using namespace snn::conv;

constexpr int64_t kParts = 16;  // the batch is cut into at most so many, whatever the number of threads

Shape shape_of(const Tensor& bits, at::IntArrayRef weight, at::IntArrayRef size, int64_t padding) {
  TORCH_CHECK_VALUE(weight.size() == 4 && size.size() == 2 && size[0] > 0 && size[1] > 0,
                    "expected weights (outputs, channels, kh, kw) and an image (rows, columns)");
  const Shape s{weight[1], size[0], size[1], weight[0], weight[2], weight[3], padding};
  TORCH_CHECK_VALUE(s.weights() > 0 && padding >= 0 && padding < std::min(s.kh, s.kw),
                    "the padding must be less than the kernel, got ", padding, " for weights ", weight);
  TORCH_CHECK_VALUE(s.out_rows() > 0 && s.out_columns() > 0, "the kernel ", weight, " is larger than the image ", size);
  TORCH_CHECK_VALUE(s.inputs() < (int64_t(1) << 31), "an image of ", s.inputs(), " inputs has too many");
  TORCH_CHECK_VALUE(bits.is_cpu() && bits.scalar_type() == at::kLong && bits.dim() == 3 && bits.is_contiguous() &&
                        bits.size(2) == s.words(),
                    "spikes must be contiguous int64 bits (T, B, ", s.words(), ") for an image ", size, " of ",
                    s.channels, " channels, got ", bits.scalar_type(), " ", bits.sizes());
  // a bit beyond the image has no pixel
  const int64_t rest = s.inputs() % kLanes;
  if (rest && bits.numel())
    TORCH_CHECK_VALUE(bits.select(2, s.words() - 1).bitwise_right_shift(rest).eq(0).all().item<bool>(),
                      "spikes have bits set beyond their image");
  return s;
}

const uint64_t* words(const Tensor& x) { return reinterpret_cast<const uint64_t*>(x.const_data_ptr<int64_t>()); }

// (T, B, rows, columns, outputs)
Tensor conv_forward(const Tensor& bits, const Tensor& weight, const MaybeTensor& bias, at::IntArrayRef size,
                    int64_t padding) {
  const Shape s = shape_of(bits, weight.sizes(), size, padding);
  TORCH_CHECK_VALUE(weight.is_cpu() && weight.scalar_type() == at::kFloat, "the weights must be float32 on the CPU");
  const at::IntArrayRef one_each(&s.outputs, 1);
  TORCH_CHECK_VALUE(!bias || (bias->is_cpu() && bias->scalar_type() == at::kFloat && bias->sizes() == one_each),
                    "the bias must be float32 [", s.outputs, "] on the CPU");
  const int64_t T = bits.size(0), B = bits.size(1);
  const Tensor runs = weight.flip(3).permute({1, 2, 3, 0}).contiguous();
  Tensor first = at::zeros({s.out_rows(), s.out_columns(), s.outputs}, weight.options());
  if (bias) first.copy_(bias->expand_as(first));
  Tensor a = BufferPool::get().empty({T, B, s.out_rows(), s.out_columns(), s.outputs}, weight.options());
  const std::vector<Pixel> pixel = pixels(s);
  const float *w = runs.const_data_ptr<float>(), *start = first.const_data_ptr<float>();
  float* to = a.data_ptr<float>();
  at::parallel_for(0, T * B, 1, [&](int64_t row, int64_t end) {
    FlushDenormals guard;
    Tensor room = at::empty_like(first);
    for (; row < end; row++)
      forward(s, words(bits) + row * s.words(), pixel.data(), w, start, room.data_ptr<float>(), to + row * s.results());
    stream_fence();
  });
  return a;
}

// dL/dW, (outputs, channels, kh, kw), and dL/dbias, (outputs), empty if not wanted, from kap = dL/da,
// (T, B, rows, columns, outputs).
std::tuple<Tensor, Tensor> conv_reverse(const Tensor& bits, const Tensor& kap_, at::IntArrayRef weight,
                                        at::IntArrayRef size, int64_t padding, bool bias) {
  const Shape s = shape_of(bits, weight, size, padding);
  const int64_t T = bits.size(0), B = bits.size(1), rows = T * B;
  TORCH_CHECK_VALUE(kap_.is_cpu() && kap_.scalar_type() == at::kFloat &&
                    kap_.sizes() == at::IntArrayRef({T, B, s.out_rows(), s.out_columns(), s.outputs}),
                    "the error must be float32 (T, B, rows, columns, outputs) on the CPU, got ", kap_.sizes());
  const Tensor kap = kap_.contiguous();
  const int64_t parts = std::max<int64_t>(1, std::min(kParts, rows));
  Tensor grad = at::zeros({parts, s.channels, s.kh, s.kw, s.outputs}, kap.options());
  Tensor grad_bias = at::zeros({parts, bias ? s.outputs : 0}, kap.options());
  const std::vector<Pixel> pixel = pixels(s);
  at::parallel_for(0, parts, 1, [&](int64_t part, int64_t last) {
    FlushDenormals guard;
    std::vector<float> room(s.outputs);
    for (; part < last; part++)
      for (int64_t row = rows * part / parts; row < rows * (part + 1) / parts; row++) {
        const float* k = kap.const_data_ptr<float>() + row * s.results();
        if (bias) learn_bias(s, k, room.data(), grad_bias.data_ptr<float>() + part * s.outputs);
        learn(s, words(bits) + row * s.words(), pixel.data(), k, grad.data_ptr<float>() + part * s.weights());
      }
  });
  Tensor sum = grad[0], sum_bias = grad_bias[0];
  for (int64_t part = 1; part < parts; part++) {
    sum.add_(grad[part]);
    sum_bias.add_(grad_bias[part]);
  }
  return {sum.permute({3, 0, 1, 2}).flip(3).contiguous(), sum_bias.clone()};
}
}  // namespace

TORCH_LIBRARY_FRAGMENT(snnlearn, m) {
  m.def("conv_forward(Tensor bits, Tensor weight, Tensor? bias, int[] size, int padding) -> Tensor");
  m.def("conv_reverse(Tensor bits, Tensor kap, int[] weight, int[] size, int padding, bool bias) -> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(snnlearn, CPU, m) {
  m.impl("conv_forward", &conv_forward);
  m.impl("conv_reverse", &conv_reverse);
}
