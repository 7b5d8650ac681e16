// Spikes to bits and back, and their number: torch.ops.snnlearn.pack_bits, unpack_bits, bits_set.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <atomic>

#include "lanes.h"
#include "pool.h"

namespace {
using namespace snn;
using at::Tensor;

int64_t words_of(int64_t n) { return (n + kLanes - 1) / kLanes; }
const uint64_t* words(const Tensor& x) { return static_cast<const uint64_t*>(x.const_data_ptr()); }

// The word of n numbers of 0 and 1; `good` turns false where there is another.
template <class T> uint64_t word_of(const T* from, int64_t n, bool& good) {
  uint64_t zeros = 0, ones = 0;
  if constexpr (std::is_same_v<T, float>) {
    if (n == kLanes) {
      for (int v = 0; v < kRegisters; v++) {
        const Lanes a = Lanes::load(from + v * kWide), one(1.0f);
        ones |= (above<true>(a, one) & above<true>(one, a)) << (v * kWide);
        zeros |= above<true>(Lanes(0.0f), absolute(a)) << (v * kWide);
      }
      good = good && (ones | zeros) == ~uint64_t(0);
      return ones;
    }
  }
  for (int64_t j = 0; j < n; j++) {
    ones |= uint64_t(from[j] == T(1)) << j;
    good = good && (from[j] == T(0) || from[j] == T(1));
  }
  return ones;
}

// 0 and 1 as bits: (T, B, N) to (T, B, words).
Tensor pack_bits(const Tensor& x_) {
  TORCH_CHECK_VALUE(x_.dim() == 3 && x_.numel() > 0, "spikes must be (T, B, N), got ", x_.sizes());
  const Tensor x = x_.contiguous();
  const int64_t N = x.size(2), count = words_of(N), rows = x.size(0) * x.size(1);
  Tensor result = at::empty({x.size(0), x.size(1), count}, x.options().dtype(at::kLong));
  uint64_t* to = static_cast<uint64_t*>(result.data_ptr());
  std::atomic<bool> good{true};
  AT_DISPATCH_FLOATING_TYPES_AND4(at::kHalf, at::kBFloat16, at::kByte, at::kBool, x.scalar_type(), "pack_bits", [&] {
    const scalar_t* from = x.const_data_ptr<scalar_t>();
    at::parallel_for(0, rows, 256, [&](int64_t row, int64_t end) {
      bool fine = true;
      for (; row < end; row++)
        for (int64_t k = 0; k < count; k++)
          to[row * count + k] = word_of(from + row * N + k * kLanes, std::min<int64_t>(kLanes, N - k * kLanes), fine);
      if (!fine) good = false;
    });
  });
  TORCH_CHECK_VALUE(good, "spikes are 0 or 1 and the tensor holds something else; make spikes of it, such as (x > 0).float()");
  return result;
}

// How many bits are set, as an int64 scalar.
Tensor bits_set(const Tensor& bits_) {
  TORCH_CHECK_TYPE(bits_.scalar_type() == at::kLong, "bits must be int64, got ", bits_.scalar_type());
  const Tensor bits = bits_.contiguous();
  const uint64_t* from = words(bits);
  int64_t sum = 0;
  for (int64_t i = 0; i < bits.numel(); i++) sum += count_bits(from[i]);
  return at::scalar_tensor(sum, bits.options());
}

// Bits to 0.0 and 1.0: (T, B, words) to (T, B, N).
Tensor unpack_bits(const Tensor& bits_, int64_t N) {
  TORCH_CHECK_TYPE(bits_.scalar_type() == at::kLong, "bits must be int64, got ", bits_.scalar_type());
  TORCH_CHECK_VALUE(bits_.dim() == 3 && N > 0 && bits_.size(2) == words_of(N), "bits must be (T, B, words) for ", N,
                    " neurons, got ", bits_.sizes());
  const Tensor bits = bits_.contiguous();
  const int64_t count = bits.size(2), rows = bits.size(0) * bits.size(1);
  Tensor result = BufferPool::get().empty({bits.size(0), bits.size(1), N}, bits.options().dtype(at::kFloat));
  const uint64_t* from = words(bits);
  float* to = result.data_ptr<float>();
  at::parallel_for(0, rows, 256, [&](int64_t row, int64_t end) {
    for (; row < end; row++)
      for (int64_t k = 0; k < count; k++)
        ones_at(from[row * count + k]).store(to + row * N + k * kLanes, std::min<int64_t>(kLanes, N - k * kLanes));
  });
  return result;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(snnlearn, m) {
  m.def("pack_bits(Tensor x) -> Tensor");
  m.def("bits_set(Tensor bits) -> Tensor");
  m.def("unpack_bits(Tensor bits, SymInt N) -> Tensor");
}

TORCH_LIBRARY_IMPL(snnlearn, CPU, m) {
  m.impl("pack_bits", &pack_bits);
  m.impl("bits_set", &bits_set);
  m.impl("unpack_bits", &unpack_bits);
}
