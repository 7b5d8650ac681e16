// torch.ops.snnlearn.scan_forward, scan_reverse, stream_copy: checks, allocates, hands pointers to scan.h, on all threads.
//   numbers  alpha, beta, theta, low, most                            kinds   Reset, Bound, Fire, whether there is a synapse
//   slope    inverse_width, peak, within                              seen    Seen, Slope
//   times    largest, width, limit, weak; empty but for TSSL-BP       seen    .., intra, leak
//   each     alpha, beta, theta, each like a step of a; empty where all neurons have the same numbers
#include <ATen/Parallel.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>
#include "pool.h"
#include "scan.h"

namespace {
using at::Tensor;
using MaybeTensor = std::optional<Tensor>;
using namespace snn;

Tensor like(const Tensor& x) { return BufferPool::get().empty(x.sizes(), x.options()); }

Tensor contiguous(const Tensor& x) {
  if (x.is_contiguous()) return x;
  Tensor copy = like(x);
  copy.copy_(x);
  return copy;
}

void check(const char* name, const Tensor& x, at::IntArrayRef sizes, const Tensor& reference) {
  TORCH_CHECK_VALUE(x.is_cpu() && x.scalar_type() == reference.scalar_type(), name, " must be a CPU tensor of ",
                    reference.scalar_type(), " like the current, got ", x.scalar_type(), " on ", x.device());
  TORCH_CHECK_VALUE(x.sizes() == sizes, name, " must have shape ", sizes, ", got ", x.sizes());
}

template <class T> const T* pointer(const MaybeTensor& x) { return x ? x->const_data_ptr<T>() : nullptr; }

template <class F> void for_blocks(int64_t M, int64_t block, const F& f) {
  at::parallel_for(0, (M + block - 1) / block, 1, [&](int64_t k, int64_t end) {
    FlushDenormals guard;
    for (; k < end; k++) f(k * block, std::min(block, M - k * block));
  });
}

// Keeps contiguous tensors alive as long as the pointers into them.
struct Inputs {
  Tensor I, U, s;
  std::vector<Tensor> each;

  Inputs(const Tensor& a, const Tensor& I0, const Tensor& U0, const Tensor& s0, at::TensorList constants)
      : I(contiguous(I0)), U(contiguous(U0)), s(contiguous(s0)) {
    const auto step = a.sizes().slice(1);
    check("I before the first step", I, step, a);
    check("U before the first step", U, step, a);
    check("s before the first step", s, step, a);
    TORCH_CHECK_VALUE(constants.empty() || constants.size() == 3, "expected alpha, beta and theta, or none of them");
    for (const Tensor& c : constants) {
      check("a constant", c, step, a);
      each.push_back(contiguous(c));
    }
  }
  template <class T> State<T> state() const {
    return {I.const_data_ptr<T>(), U.const_data_ptr<T>(), s.const_data_ptr<T>()};
  }
};

template <class T>
Neurons<T> neurons(const Inputs& in, at::ArrayRef<double> numbers, at::IntArrayRef kinds) {
  TORCH_CHECK_VALUE(numbers.size() == 5 && kinds.size() == 4, "expected 5 numbers and 4 kinds");
  TORCH_CHECK_VALUE(kinds[0] >= 0 && kinds[0] <= int(Reset::None) && kinds[1] >= 0 && kinds[1] <= int(Bound::AfterInput) &&
                    kinds[2] >= 0 && kinds[2] <= int(Fire::Analog), "unknown kind of neuron");
  Neurons<T> p{Reset(kinds[0]), Bound(kinds[1]), Fire(kinds[2]), kinds[3] != 0,
               {T(numbers[0]), T(numbers[1]), T(numbers[2])}, {}, T(numbers[3]), T(numbers[4])};
  if (!in.each.empty())
    p.each = {in.each[0].const_data_ptr<T>(), in.each[1].const_data_ptr<T>(), in.each[2].const_data_ptr<T>()};
  return p;
}

int64_t steps_of(const Tensor& a) {
  TORCH_CHECK_VALUE(a.is_cpu() && a.dim() >= 1, "the current must be a CPU tensor (T, ...)");
  return a.size(0);
}

std::tuple<Tensor, Tensor, Tensor> scan_forward(const Tensor& a_, const Tensor& I0, const Tensor& U0, const Tensor& s0,
                                                at::TensorList each, at::ArrayRef<double> numbers, at::IntArrayRef kinds) {
  const Tensor a = contiguous(a_);
  const int64_t steps = steps_of(a);
  const Inputs in(a, I0, U0, s0, each);
  const bool synapse = kinds.size() == 4 && kinds[3];
  Tensor I = synapse ? like(a) : at::empty({0}, a.options()), U = like(a), s = like(a);
  if (a.numel() == 0) return {I, U, s};
  const int64_t M = a.numel() / steps;
  AT_DISPATCH_FLOATING_TYPES(a.scalar_type(), "scan_forward", [&] {
    using T = scalar_t;
    const Neurons<T> p = neurons<T>(in, numbers, kinds);
    const T* x = a.const_data_ptr<T>();
    T *i = synapse ? I.data_ptr<T>() : nullptr, *u = U.data_ptr<T>(), *spikes = s.data_ptr<T>();
    for_blocks(M, kBlock<T>, [&](int64_t m0, int64_t w) {
      scan_forward_block<T>(p, x, in.state<T>(), i, u, spikes, steps, M, m0, w);
    });
  });
  return {I, U, s};
}

// An error that is the same at every step, such as that of a sum, is not copied T times.
template <class T> Errors<T> errors(const char* name, const MaybeTensor& e, const Tensor& U, std::vector<Tensor>& alive) {
  if (!e) return {};
  check(name, *e, U.sizes(), U);
  const bool constant = U.size(0) > 1 && e->stride(0) == 0;
  alive.push_back(contiguous(constant ? e->select(0, 0) : *e));
  return {alive.back().const_data_ptr<T>(), constant ? 0 : U.numel() / U.size(0)};
}

std::vector<Tensor> scan_reverse(const MaybeTensor& e_I, const MaybeTensor& e_U, const MaybeTensor& e_s, const MaybeTensor& I_,
                                 const Tensor& U_, const Tensor& I0, const Tensor& U0, const Tensor& s0, const MaybeTensor& lam,
                                 const MaybeTensor& kap, const MaybeTensor& I_next, const MaybeTensor& psc, at::TensorList each,
                                 at::ArrayRef<double> numbers, at::IntArrayRef kinds, at::ArrayRef<double> slope,
                                 at::ArrayRef<double> times, at::IntArrayRef seen, bool constants) {
  const Tensor U = contiguous(U_);
  const int64_t steps = steps_of(U);
  TORCH_CHECK_VALUE(U.numel() > 0, "there is no step, or no neuron, to go back through");
  const Inputs in(U, I0, U0, s0, each);
  const int64_t M = U.numel() / steps;
  const auto step = U.sizes().slice(1);
  TORCH_CHECK_VALUE(slope.size() == 3 && seen.size() == 4 && (times.empty() || times.size() == 4), "unknown kind of credit");
  TORCH_CHECK_VALUE(seen[0] >= 0 && seen[0] <= int(Seen::Ignored) && seen[1] >= 0 && seen[1] <= int(Slope::Straight),
                    "unknown kind of credit");
  std::vector<Tensor> alive;
  alive.reserve(8);
  const auto keep = [&](const char* name, const MaybeTensor& x, at::IntArrayRef sizes) -> const Tensor* {
    if (!x) return nullptr;
    check(name, *x, sizes, U);
    alive.push_back(contiguous(*x));
    return &alive.back();
  };
  const Tensor* I = keep("I", I_, U.sizes());
  const bool looks_at_I = constants || ((kinds[0] == int(Reset::ToZeroWithInput) || kinds[1] == int(Bound::AfterInput)) &&
                                        seen[0] != int(Seen::Ignored));
  TORCH_CHECK_VALUE(I || !looks_at_I, "this gradient looks at the current I");
  const Tensor *l = keep("lam", lam, step), *k = keep("kap", kap, step), *next = keep("I after the last step", I_next, step),
               *current = keep("psc", psc, U.sizes());
  Tensor out = like(U);
  std::vector<Tensor> result{out};
  for (int j = 0; j < 4; j++) result.push_back(at::empty(step, U.options()));  // first lam, then I, U, s before
  for (int j = 0; j < 3; j++) result.push_back(constants ? at::zeros(step, U.options()) : at::empty({0}, U.options()));
  AT_DISPATCH_FLOATING_TYPES(U.scalar_type(), "scan_reverse", [&] {
    using T = scalar_t;
    const Neurons<T> p = neurons<T>(in, numbers, kinds);
    Credit<T> credit{Seen(seen[0]), Slope(seen[1]), {T(slope[0]), T(slope[1]), T(slope[2])}, {}};
    if (!times.empty())
      credit.times = {true, seen[2] != 0, seen[3] != 0, T(times[0]), T(times[1]), T(times[2]),
                      current ? current->const_data_ptr<T>() : nullptr, T(times[3])};
    TORCH_CHECK_VALUE(!credit.times.on || in.each.empty(), "TSSL-BP takes constants that are numbers");
    const auto data = [](const Tensor* x) { return x ? x->const_data_ptr<T>() : nullptr; };
    const auto to = [&](int j) { return result[j].numel() ? result[j].data_ptr<T>() : nullptr; };
    const Reverse<T> r{errors<T>("the error of I", e_I, U, alive), errors<T>("the error of U", e_U, U, alive),
                       errors<T>("the error of s", e_s, U, alive), data(I), U.const_data_ptr<T>(), in.state<T>(),
                       data(l), data(k), data(next), to(0), to(2), to(3), to(4), to(5), to(6), to(7), to(1)};
    for_blocks(M, kBlock<T>, [&](int64_t m0, int64_t w) { scan_reverse_block<T>(p, credit, r, steps, M, m0, w); });
  });
  return result;
}

// A copy by the same stores into the same kind of memory: the yardstick for the two above.
Tensor stream_copy_of(const Tensor& x_) {
  const Tensor x = contiguous(x_), to = like(x);
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "stream_copy", [&] {
    using T = scalar_t;
    const T* from = x.const_data_ptr<T>();
    T* at = to.data_ptr<T>();
    for_blocks(x.numel(), int64_t(1) << 16, [&](int64_t m0, int64_t w) {
      stream_copy(at + m0, from + m0, w);
      stream_fence();
    });
  });
  return to;
}
}  // namespace

TORCH_LIBRARY_FRAGMENT(snnlearn, m) {
  m.def("scan_forward(Tensor a, Tensor I0, Tensor U0, Tensor s0, Tensor[] each, float[] numbers, int[] kinds) -> "
        "(Tensor, Tensor, Tensor)");
  m.def("scan_reverse(Tensor? e_I, Tensor? e_U, Tensor? e_s, Tensor? I, Tensor U, Tensor I0, Tensor U0, Tensor s0, "
        "Tensor? lam, Tensor? kap, Tensor? I_next, Tensor? psc, Tensor[] each, float[] numbers, int[] kinds, float[] slope, "
        "float[] times, int[] seen, bool constants) -> Tensor[]");
  m.def("stream_copy(Tensor x) -> Tensor");
  m.def("pool_limit(int bytes) -> ()", [](int64_t bytes) { BufferPool::get().set_limit(bytes); });
  m.def("pool_unused() -> int", []() { return BufferPool::get().unused(); });
}

TORCH_LIBRARY_IMPL(snnlearn, CPU, m) {
  m.impl("scan_forward", &scan_forward);
  m.impl("scan_reverse", &scan_reverse);
  m.impl("stream_copy", &stream_copy_of);
}
