// Mixing experts: y[b, p] = sum_e routing[b, e] * experts[e, p], for a few examples.
//
// At batch 1 this is all that a CondConv costs more than a convolution, and all it costs is reading
// the experts. So they are read once, in whatever width they are stored, each value widened in a
// register; and those of weight 0 are not read at all, which is what sparse routing saves.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "parallel.h"

namespace condconv {
namespace {

namespace ffi = xla::ffi;

// Values of one task; sums of them, and the experts' rows of them, stay in the nearest cache.
constexpr int64_t kBlock = 1024;
// Experts that are added at a time, for each time that the sums are loaded and stored.
constexpr int64_t kTogether = 4;

struct Bfloat16 {
  uint16_t bits;
};

inline float Widen(float value) { return value; }

inline float Widen(int8_t value) { return static_cast<float>(value); }

inline float Widen(Bfloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;  // the upper half of a float
  float wide;
  std::memcpy(&wide, &bits, sizeof(wide));
  return wide;
}

template <typename T>
struct Term {
  const T* expert;
  float weight;
};

// Adds kCount weighted experts to `length` sums. A plain loop: compilers make vectors of it.
template <int kCount, typename T>
void Add(const Term<T>* terms, int64_t begin, int64_t length, float* __restrict__ sums) {
  const T* experts[kCount];
  float weights[kCount];
  for (int k = 0; k < kCount; ++k) {
    experts[k] = terms[k].expert + begin;
    weights[k] = terms[k].weight;
  }
  for (int64_t i = 0; i < length; ++i) {
    float sum = sums[i];
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k) sum += weights[k] * Widen(experts[k][i]);
    sums[i] = sum;
  }
}

template <typename T>
void Mix(const float* routing, const T* experts, float* mixed, int64_t batch, int64_t num_experts,
         int64_t size, ffi::ThreadPool& pool) {
  std::vector<std::vector<Term<T>>> terms(batch);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t e = 0; e < num_experts; ++e) {
      const float weight = routing[b * num_experts + e];
      if (weight != 0) terms[b].push_back({experts + e * size, weight});
    }
  }
  ParallelFor(pool, (size + kBlock - 1) / kBlock, [&](int64_t task) {
    const int64_t begin = task * kBlock, length = std::min(kBlock, size - begin);
    for (int64_t b = 0; b < batch; ++b) {
      float* sums = mixed + b * size + begin;
      std::fill_n(sums, length, 0.0f);
      const int64_t count = terms[b].size();
      int64_t k = 0;
      for (; k + kTogether <= count; k += kTogether) {
        Add<kTogether>(&terms[b][k], begin, length, sums);
      }
      for (; k < count; ++k) Add<1>(&terms[b][k], begin, length, sums);
    }
  });
}

ffi::Error MixCall(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> routing, ffi::AnyBuffer experts,
                   ffi::Result<ffi::Buffer<ffi::F32>> mixed) {
  const int64_t batch = routing.dimensions()[0], num_experts = routing.dimensions()[1];
  const int64_t size = experts.dimensions()[1];
  auto mix = [&](const auto* values) {
    Mix(routing.typed_data(), values, mixed->typed_data(), batch, num_experts, size, pool);
    return ffi::Error::Success();
  };
  switch (experts.element_type()) {
    case ffi::F32:
      return mix(static_cast<const float*>(experts.untyped_data()));
    case ffi::BF16:
      return mix(static_cast<const Bfloat16*>(experts.untyped_data()));
    case ffi::S8:
      return mix(static_cast<const int8_t*>(experts.untyped_data()));
    default:
      return ffi::Error::InvalidArgument("experts are neither float32, bfloat16 nor int8");
  }
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(MixExperts, MixCall,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

}  // namespace condconv
