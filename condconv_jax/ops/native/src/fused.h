// What the forward pass and the gradients of a fused convolution share.

#ifndef CONDCONV_FUSED_H_
#define CONDCONV_FUSED_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "convolution.h"
#include "lanes.h"

namespace condconv {

// Rows of one inner loop. With two registers to a row, its sums fill all but those that a row of a
// panel and a value of x need. AVX-512 and NEON have 32 registers, AVX2 and SSE 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kMostRows = 12;
#else
constexpr int kMostRows = 6;
#endif
// Floats between the arrays of a group's examples: at a power of two, the same place in all of them
// would fall onto the same few lines of a cache.
constexpr int64_t kApart = 8 * kLanes;

// A per-example convolution of one group.
struct FusedConvolution {
  Axis rows, columns;
  int64_t batch, channels, features, experts;

  int64_t in_pixels() const { return rows.in * columns.in; }
  int64_t out_pixels() const { return rows.out * columns.out; }
  int64_t taps() const { return rows.taps * columns.taps; }
  int64_t kernel_size() const { return taps() * channels * features; }
};

// Floats of 4 KiB. Rows so far apart, or a multiple of it, all fall onto the same few lines of a
// cache.
constexpr int64_t kWay = 1024;

// Part i of `count` that a length is cut into, as evenly as possible.
inline int64_t Cut(int64_t length, int64_t count, int64_t i) { return i * length / count; }

// A thread's own memory, kept between calls: new pages would cost more than what is done in them.
inline float* AtLeast(int64_t floats, std::vector<Lanes>& kept) {
  if (static_cast<int64_t>(kept.size()) * kLanes < floats) kept.resize(Ceil(floats, kLanes));
  return reinterpret_cast<float*>(kept.data());
}

inline FusedConvolution MakeFused(const Integers& in, const Integers& out, const Integers& experts,
                                  const Integers& strides, const Integers& dilation,
                                  const Integers& low) {
  return {{in[1], out[1], experts[1], strides[0], dilation[0], low[0]},
          {in[2], out[2], experts[2], strides[1], dilation[1], low[1]},
          in[0],
          in[3],
          out[3],
          experts[0]};
}

// The input that an output meets under a tap, along one axis; -1 where that is padding.
inline int64_t Met(const Axis& axis, int64_t output, int64_t tap) {
  const int64_t input = output * axis.stride - axis.low + tap * axis.dilation;
  return input < axis.in ? std::max<int64_t>(input, -1) : -1;
}

// The output that meets an input under a tap; -1 where none does.
inline int64_t MetBy(const Axis& axis, int64_t input, int64_t tap) {
  const int64_t offset = input + axis.low - tap * axis.dilation;
  if (offset < 0 || offset % axis.stride) return -1;
  return offset / axis.stride < axis.out ? offset / axis.stride : -1;
}

// The pixel that each output meets under each tap, [tap][output]; -1 where that is padding.
inline std::vector<int64_t> MetPixels(const FusedConvolution& conv) {
  std::vector<int64_t> met;
  met.reserve(conv.taps() * conv.out_pixels());
  for (int64_t i = 0; i < conv.rows.taps; ++i) {
    for (int64_t j = 0; j < conv.columns.taps; ++j) {
      for (int64_t y = 0; y < conv.rows.out; ++y) {
        const int64_t row = Met(conv.rows, y, i);
        for (int64_t x = 0; x < conv.columns.out; ++x) {
          const int64_t column = Met(conv.columns, x, j);
          met.push_back(row < 0 || column < 0 ? -1 : row * conv.columns.in + column);
        }
      }
    }
  }
  return met;
}

}  // namespace condconv

#endif  // CONDCONV_FUSED_H_
