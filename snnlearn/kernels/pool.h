// Memory of large results, kept when a tensor dies and handed to the next one of its size. An operating system hands out
// fresh pages several times slower than memory can be written, and a training step asks for the same sizes again.
#pragma once
#include <ATen/ATen.h>
#include <cstdlib>
#include <limits>
#include <mutex>
#include <new>
#include <vector>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace snn {

class BufferPool {
 public:
  static BufferPool& get() {
    static BufferPool* pool = new BufferPool;  // never destroyed: tensors may outlive what is static
    return *pool;
  }

  // A tensor without values. Small ones come from torch, which keeps those itself.
  at::Tensor empty(at::IntArrayRef sizes, const at::TensorOptions& options) {
    int64_t bytes = int64_t(c10::elementSize(c10::typeMetaToScalarType(options.dtype())));
    for (int64_t n : sizes) {
      TORCH_CHECK(n == 0 || bytes <= std::numeric_limits<int64_t>::max() / n, "a result of these sizes has no address");
      bytes *= n;
    }
#if defined(SNN_NO_POOL)  // so that a sanitizer sees where each result ends
    return at::empty(sizes, options);
#endif
    if (bytes < kPage) return at::empty(sizes, options);
    const int64_t rounded = (bytes + kPage - 1) / kPage * kPage;
    void* memory = take(rounded);
    return at::from_blob(memory, sizes, [rounded](void* p) { BufferPool::get().give_back(p, rounded); }, options);
  }

  // How many bytes may lie unused; what is above goes back to the system, the oldest first.
  void set_limit(int64_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    limit_ = bytes;
    trim();
  }

  int64_t unused() {
    std::lock_guard<std::mutex> lock(mutex_);
    return held_;
  }

 private:
  struct Buffer {
    void* memory;
    int64_t bytes;
  };
  static constexpr int64_t kPage = int64_t(2) << 20;  // a huge page

  void* take(int64_t bytes) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      for (auto buffer = unused_.rbegin(); buffer != unused_.rend(); ++buffer)
        if (buffer->bytes == bytes) {
          void* memory = buffer->memory;
          unused_.erase(std::next(buffer).base());
          held_ -= bytes;
          return memory;
        }
    }
    void* memory = nullptr;
    if (posix_memalign(&memory, kPage, bytes) != 0) throw std::bad_alloc();
#if defined(__linux__)
    madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return memory;
  }

  void give_back(void* memory, int64_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    unused_.push_back({memory, bytes});
    held_ += bytes;
    trim();
  }

  void trim() {
    while (held_ > limit_) {
      held_ -= unused_.front().bytes;
      std::free(unused_.front().memory);
      unused_.erase(unused_.begin());
    }
  }

  std::mutex mutex_;
  std::vector<Buffer> unused_;
  int64_t held_ = 0, limit_ = int64_t(1) << 30;
};

}  // namespace snn
