// Runs CUDA kernels on the CPU, so that their logic can be tested where there is no GPU: include before a .cu file that
// is compiled as C++ (g++ -x c++ -include cuda_on_cpu.h).
//
// A thread of a block is a fiber: it runs until it waits for others, then the next one runs. Threads that wait for each
// other at different places, or for one that has returned, end the program with a message. Which threads go first is
// set by cuda_on_cpu_order: what needs a barrier and has none gives another result one way than the other.
// What is not imitated: caches, the order of memory writes, rounding of exp2, and speed.
#pragma once
#include <setjmp.h>
#include <ucontext.h>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <utility>
#include <vector>

#define SNN_CUDA_ON_CPU
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static  // one block at a time, so one copy will do

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace on_cpu {

enum class Wait { Ready, Warp, Block, Done };

// Made once, with a stack of its own, and then reused for thread after thread. Switching by longjmp needs no call of
// the operating system, as swapcontext does.
struct Fiber {
  ucontext_t start;
  jmp_buf point;
  std::vector<char> stack = std::vector<char>(128 << 10);
  bool started = false;
  Wait wait = Wait::Done;
  unsigned turns = 0;  // exchanges within the warp so far
};

inline bool reversed = false;
inline jmp_buf scheduler;
inline std::deque<Fiber> fibers;
inline unsigned current, threads;
inline std::function<void()> body;
inline uint64_t mailbox[32][2][32];  // of a warp, for exchanges with even and odd numbers

[[noreturn]] inline void fail(const char* why) {
  std::fprintf(stderr, "cuda_on_cpu: %s\n", why);
  std::abort();
}

__attribute__((noinline)) inline void yield(Wait wait) {
  fibers[current].wait = wait;
  if (!_setjmp(fibers[current].point)) _longjmp(scheduler, 1);
}

inline void run_fiber() {
  for (;;) {
    body();
    yield(Wait::Done);
  }
}

}  // namespace on_cpu

inline dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace on_cpu {

// Runs a thread until it waits.
__attribute__((noinline)) inline void resume(unsigned thread) {
  current = thread;
  threadIdx = dim3(thread);
  if (_setjmp(scheduler)) return;
  Fiber& f = fibers[thread];
  if (f.started) _longjmp(f.point, 1);
  f.started = true;
  setcontext(&f.start);
}

// Runs a warp until all its threads wait for the block or have returned.
inline void run_warp(unsigned first, unsigned end) {
  for (;;) {
    unsigned in_warp = 0;
    for (unsigned i = first; i < end; i++) {
      const unsigned thread = reversed ? end - 1 - (i - first) : i;
      if (fibers[thread].wait == Wait::Done) continue;
      resume(thread);
      in_warp += fibers[thread].wait == Wait::Warp;
    }
    if (in_warp == 0) return;
    if (in_warp != end - first) fail("a warp's threads exchange values, and some of them are elsewhere");
  }
}

inline void run_block() {
  while (fibers.size() < threads) {
    Fiber& f = fibers.emplace_back();
    getcontext(&f.start);
    f.start.uc_stack.ss_sp = f.stack.data();
    f.start.uc_stack.ss_size = f.stack.size();
    f.start.uc_link = nullptr;
    makecontext(&f.start, run_fiber, 0);
  }
  for (unsigned i = 0; i < threads; i++) fibers[i].wait = Wait::Ready, fibers[i].turns = 0;
  const unsigned warps = (threads + 31) / 32;
  for (unsigned waiting = 1; waiting;) {
    waiting = 0;
    for (unsigned i = 0; i < warps; i++) {
      const unsigned w = reversed ? warps - 1 - i : i;
      run_warp(32 * w, std::min(threads, 32 * w + 32));
    }
    for (unsigned i = 0; i < threads; i++) waiting += fibers[i].wait == Wait::Block;
    if (waiting && waiting != threads) fail("__syncthreads is not reached by all threads of the block");
  }
}

template <class V> V exchange(V value, unsigned from) {
  Fiber& self = fibers[current];
  const unsigned warp = current / 32, turn = self.turns++ % 2;
  static_assert(sizeof(V) <= 8);
  mailbox[warp][turn][current % 32] = 0;
  std::memcpy(&mailbox[warp][turn][current % 32], &value, sizeof value);
  yield(Wait::Warp);
  V got;
  std::memcpy(&got, &mailbox[warp][turn][from % 32], sizeof got);
  return got;
}

}  // namespace on_cpu

inline void __syncthreads() { on_cpu::yield(on_cpu::Wait::Block); }
inline void __syncwarp() { on_cpu::yield(on_cpu::Wait::Warp); }

inline uint32_t __ballot_sync(uint32_t, bool vote) {
  const unsigned warp = threadIdx.x / 32, turn = on_cpu::fibers[on_cpu::current].turns % 2;
  on_cpu::exchange<uint64_t>(vote, 0);
  uint32_t votes = 0;
  for (int i = 0; i < 32; i++) votes |= uint32_t(on_cpu::mailbox[warp][turn][i] != 0) << i;
  return votes;
}
template <class V> V __shfl_xor_sync(uint32_t, V value, unsigned mask) {
  return on_cpu::exchange(value, (threadIdx.x % 32) ^ mask);
}
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }

namespace snn {

template <class... P, class... A>
int launch(void (*kernel)(P...), dim3 grid, unsigned threads, void*, const A&... arguments) {
  if (threads == 0 || threads > 1024 || grid.x == 0 || grid.y == 0 || grid.y > 65535 || grid.z == 0 || grid.z > 65535)
    return 9;  // cudaErrorInvalidConfiguration
  gridDim = grid;
  blockDim = dim3(threads);
  on_cpu::threads = threads;
  on_cpu::body = [&] { kernel(arguments...); };
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) {
        blockIdx = dim3(x, y, z);
        on_cpu::run_block();
      }
  return 0;
}

inline const char* error_name(int code) { return code == 1 ? "cudaErrorInvalidValue" : "cudaErrorInvalidConfiguration"; }

}  // namespace snn

extern "C" inline __attribute__((used)) void cuda_on_cpu_order(int reversed) { on_cpu::reversed = reversed; }
