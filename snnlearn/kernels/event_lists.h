// Spikes as lists of events: in the order of time, and by input.
#pragma once
#include <algorithm>
#include <vector>

#include "lanes.h"

namespace snn::events {

constexpr int64_t kSweep = 128;  // steps whose dL/da is kept until it goes into dL/dW: half of a first cache

inline int64_t words_of(int64_t n) { return (n + kLanes - 1) / kLanes; }

// The set bits of one sample: index[start[t]] .. index[start[t+1] - 1] at step t, in rising order.
struct Events {
  std::vector<int32_t> index, start;

  void unpack(const uint64_t* bits, int64_t steps, int64_t words) {
    start.resize(steps + 1);
    int64_t n = 0;
    for (int64_t t = 0; t < steps; t++) {
      start[t] = int32_t(n);
      const int64_t most = n + kLanes * words + 4;
      if (int64_t(index.size()) < most) index.resize(2 * most);
      for (int64_t k = 0; k < words; k++) {
        // Four writes whatever the number of events, the surplus overwritten by the next word: the branch that asks
        // "another one?" would be mispredicted once a word and cost more than the layer.
        uint64_t x = bits[t * words + k];
        const int count = count_bits(x);
        const auto base = int32_t(kLanes * k);
        int32_t* to = index.data() + n;
        for (int i = 0; i < 4; i++, x &= x - 1) to[i] = base + first_bit(x | uint64_t(1) << 63);
        for (int i = 4; i < count; i++, x &= x - 1) to[i] = base + first_bit(x);
        n += count;
      }
    }
    start[steps] = int32_t(n);
  }

  const int32_t* begin(int64_t t) const { return index.data() + start[t]; }  // t = T: the end
  const int32_t* end(int64_t t) const { return index.data() + start[t + 1]; }
};

// The same events by input, for sums over steps: each kSweep steps are a sweep, in which an input's row of dL/dW is read
// and written once. The inputs stand in the order of how many events they have, so that a loop over these has the same
// length many times over: one that changes all the time would be mispredicted.
struct ByInput {
  struct Class { int32_t events, inputs; };  // inputs with so many events each
  std::vector<uint32_t> list;                // of each class: an input, then the steps of its events within the sweep
  std::vector<Class> classes;
  std::vector<int32_t> list_at, class_at;    // of each sweep

  void sort(const Events& in, int64_t steps, int64_t inputs) {
    const int64_t sweeps = (steps + kSweep - 1) / kSweep;
    list.resize(in.start[steps] + std::min<int64_t>(in.start[steps], sweeps * inputs));
    list_at.assign(1, 0);
    class_at.assign(1, 0);
    classes.clear();
    for (int64_t first = 0; first < steps; first += kSweep) {
      const int64_t last = std::min(steps, first + kSweep);
      place.assign(inputs, 0);
      for (const int32_t *i = in.begin(first), *end = in.begin(last); i != end; ++i) place[*i]++;
      int32_t count[kSweep + 1] = {}, at[kSweep + 1], next = list_at.back();
      for (int64_t i = 0; i < inputs; i++) count[place[i]]++;
      for (int32_t k = 1; k <= kSweep; k++) {
        at[k] = next;
        next += count[k] * (k + 1);
        if (count[k]) classes.push_back({k, count[k]});
      }
      for (int64_t i = 0; i < inputs; i++) {
        const int32_t k = place[i];
        if (!k) continue;
        list[at[k]] = uint32_t(i);
        place[i] = at[k] + 1;
        at[k] += k + 1;
      }
      for (int64_t t = first; t < last; t++)
        for (const int32_t *i = in.begin(t), *end = in.end(t); i != end; ++i) list[place[*i]++] = uint32_t(t - first);
      list_at.push_back(next);
      class_at.push_back(int32_t(classes.size()));
    }
  }

 private:
  std::vector<int32_t> place;
};

}  // namespace snn::events
