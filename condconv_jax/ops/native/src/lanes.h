// As many floats at a time as a register of this processor holds. Of wider vectors compilers make
// poor code: GCC 12 keeps those of sixteen floats in memory where registers hold eight.

#ifndef CONDCONV_LANES_H_
#define CONDCONV_LANES_H_

#include <cstdint>
#include <cstring>

namespace condconv {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));

inline Lanes Load(const float* from) {
  Lanes value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

inline void Store(float* to, Lanes value) { std::memcpy(to, &value, sizeof(value)); }

// The first `count` lanes; the others are 0.
inline Lanes LoadSome(const float* from, int64_t count) {
  if (count >= kLanes) return Load(from);
  Lanes value = {};
  std::memcpy(&value, from, count * sizeof(float));
  return value;
}

inline void StoreSome(float* to, Lanes value, int64_t count) {
  if (count >= kLanes) return Store(to, value);
  std::memcpy(to, &value, count * sizeof(float));
}

// Two neighbouring registers: a row of a panel in a product. Of the floats that are there, `count`
// is at least one.
struct Pair {
  Lanes first, second;
};

constexpr int64_t kWidth = 2 * kLanes;

inline Pair LoadPair(const float* from) { return {Load(from), Load(from + kLanes)}; }

inline void StorePair(float* to, Pair value) {
  Store(to, value.first);
  Store(to + kLanes, value.second);
}

inline Pair LoadSomePair(const float* from, int64_t count) {
  if (count >= kWidth) return LoadPair(from);
  return {LoadSome(from, count),
          count > kLanes ? LoadSome(from + kLanes, count - kLanes) : Lanes{}};
}

inline void StoreSomePair(float* to, Pair value, int64_t count) {
  StoreSome(to, value.first, count);
  if (count > kLanes) StoreSome(to + kLanes, value.second, count - kLanes);
}

}  // namespace condconv

#endif  // CONDCONV_LANES_H_
