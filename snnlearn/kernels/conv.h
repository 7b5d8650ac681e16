// A convolution of stride 1 driven by events: an input spike adds its kernel to the outputs around it, silence costs
// nothing.
//
//   a[o, i + pad - dy, j + pad - dx] += W[o, c, dy, dx]       for each spike of channel c at row i, column j
//
// Channels stand last, and the columns of a kernel in reverse, (C, kh, kw, outputs): each row of the kernel is then one
// run of kw * outputs numbers, there and in the output (rows, columns, outputs), cut where the image ends. The gradient
// of the weights takes the same runs the other way.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>
#include "lanes.h"
#include "portable.h"

namespace snn::conv {

struct Shape {
  int64_t channels, rows, columns, outputs, kh, kw, padding;

  int64_t out_rows() const { return rows + 2 * padding - kh + 1; }
  int64_t out_columns() const { return columns + 2 * padding - kw + 1; }
  int64_t inputs() const { return channels * rows * columns; }
  int64_t results() const { return out_rows() * out_columns() * outputs; }
  int64_t weights() const { return channels * kh * kw * outputs; }
  int64_t words() const { return (inputs() + kLanes - 1) / kLanes; }
};

// Where each of the inputs is, so that no event divides.
struct Pixel { int32_t channel, row, column; };

inline std::vector<Pixel> pixels(const Shape& s) {
  std::vector<Pixel> all;
  all.reserve(s.inputs());
  for (int32_t c = 0; c < s.channels; c++)
    for (int32_t i = 0; i < s.rows; i++)
      for (int32_t j = 0; j < s.columns; j++) all.push_back({c, i, j});
  return all;
}

// to[0..n) += from[0..n).
SNN_BOTH void add(float* to, const float* from, int64_t n) {
  int64_t j = 0;
  for (; j + kWide <= n; j += kWide) (Lanes::load(to + j) + Lanes::load(from + j)).store(to + j);
  for (; j < n; j++) to[j] += from[j];
}

// visit(weight offset, image offset, length) for each run of each spike of one (t, b).
template <class F> SNN_BOTH void for_runs(const Shape& s, const uint64_t* bits, const Pixel* pixel, const F& visit) {
  const int64_t height = s.out_rows(), width = s.out_columns(), run = s.kw * s.outputs, words = s.words();
  for (int64_t k = 0; k < words; k++)
    for (uint64_t x = bits[k]; x; x &= x - 1) {
      const Pixel p = pixel[k * kLanes + first_bit(x)];
      // the leftmost output is that of the kernel's last column, which stands first
      const int64_t left = p.column + s.padding - (s.kw - 1);
      const int64_t from = std::max<int64_t>(left, 0), to = std::min(left + s.kw, width);
      if (from >= to) continue;
      const int64_t lowest = std::max<int64_t>(0, p.row + s.padding - (height - 1));
      const int64_t highest = std::min(s.kh - 1, p.row + s.padding);
      const int64_t length = (to - from) * s.outputs;
      int64_t weight = (p.channel * s.kh + lowest) * run + (from - left) * s.outputs;
      int64_t image = ((p.row + s.padding - lowest) * width + from) * s.outputs;
      for (int64_t dy = lowest; dy <= highest; dy++, weight += run, image -= width * s.outputs)
        visit(weight, image, length);
    }
}

// a (rows, columns, outputs) of one (t, b); `first` is the bias at each pixel, `room` as large as a.
inline void forward(const Shape& s, const uint64_t* bits, const Pixel* pixel, const float* weight, const float* first,
                    float* room, float* a) {
  std::memcpy(room, first, size_t(s.results()) * sizeof(float));
  for_runs(s, bits, pixel, [&](int64_t w, int64_t image, int64_t n) { add(room + image, weight + w, n); });
  stream_copy(a, room, s.results());
}

// dL/dW of one (t, b), added; `kap` is dL/da.
inline void learn(const Shape& s, const uint64_t* bits, const Pixel* pixel, const float* kap, float* weight) {
  for_runs(s, bits, pixel, [&](int64_t w, int64_t image, int64_t n) { add(weight + w, kap + image, n); });
}

// dL/dbias of one (t, b), added; `room` has one number for each output. Images are summed apart, which loses less.
inline void learn_bias(const Shape& s, const float* kap, float* room, float* bias) {
  std::fill_n(room, s.outputs, 0.0f);
  for (int64_t at = 0; at < s.results(); at += s.outputs) add(room, kap + at, s.outputs);
  add(bias, room, s.outputs);
}

}  // namespace snn::conv
