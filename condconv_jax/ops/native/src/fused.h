// What the forward pass and the gradients of a fused convolution share.

#ifndef CONDCONV_FUSED_H_
#define CONDCONV_FUSED_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lanes.h"
#include "xla/ffi/api/ffi.h"

namespace condconv {

// Rows of one inner loop: with kVectors to a row, its sums fill the registers, less those that one
// row of a panel and a value of x need. AVX-512 and NEON have 32 of them, AVX2 and SSE 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kMostRows = 12;
#else
constexpr int kMostRows = 6;
#endif
constexpr int64_t kVectors = 2;
constexpr int64_t kWidth = kVectors * kLanes;
// Floats between the arrays of a group's examples: at a power of two, the same place in all of them
// would fall onto the same few lines of a cache.
constexpr int64_t kApart = 8 * kLanes;

// A convolution along one axis.
struct Line {
  int64_t in, out, taps, stride, dilation, low;
};

// A per-example convolution of one group.
struct Fused {
  Line rows, columns;
  int64_t batch, channels, features, experts;

  int64_t in_pixels() const { return rows.in * columns.in; }
  int64_t out_pixels() const { return rows.out * columns.out; }
  int64_t taps() const { return rows.taps * columns.taps; }
  int64_t kernel_size() const { return taps() * channels * features; }
};

inline int64_t Ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Part i of `count` that a length is cut into, as evenly as possible.
inline int64_t Cut(int64_t length, int64_t count, int64_t i) { return i * length / count; }

// A thread's own memory, kept between calls: new pages would cost more than what is done in them.
inline float* AtLeast(int64_t floats, std::vector<Lanes>& kept) {
  if (static_cast<int64_t>(kept.size()) * kLanes < floats) kept.resize(Ceil(floats, kLanes));
  return reinterpret_cast<float*>(kept.data());
}

using Span = xla::ffi::Span<const int64_t>;

inline Fused MakeFused(const Span& in, const Span& out, const Span& experts, const Span& strides,
                       const Span& dilation, const Span& low) {
  return {{in[1], out[1], experts[1], strides[0], dilation[0], low[0]},
          {in[2], out[2], experts[2], strides[1], dilation[1], low[1]},
          in[0],
          in[3],
          out[3],
          experts[0]};
}

// The input that an output meets under a tap, along one axis; -1 where that is padding.
inline int64_t Met(const Line& line, int64_t output, int64_t tap) {
  const int64_t input = output * line.stride - line.low + tap * line.dilation;
  return input < line.in ? std::max<int64_t>(input, -1) : -1;
}

// The output that meets an input under a tap; -1 where none does.
inline int64_t MetBy(const Line& line, int64_t input, int64_t tap) {
  const int64_t offset = input + line.low - tap * line.dilation;
  if (offset < 0 || offset % line.stride) return -1;
  return offset / line.stride < line.out ? offset / line.stride : -1;
}

// The pixel that each output meets under each tap, [tap][output]; -1 where that is padding.
inline std::vector<int64_t> MetPixels(const Fused& conv) {
  std::vector<int64_t> met;
  for (int64_t i = 0; i < conv.rows.taps; ++i) {
    for (int64_t j = 0; j < conv.columns.taps; ++j) {
      for (int64_t pixel = 0; pixel < conv.out_pixels(); ++pixel) {
        const int64_t row = Met(conv.rows, pixel / conv.columns.out, i);
        const int64_t column = Met(conv.columns, pixel % conv.columns.out, j);
        met.push_back(row < 0 || column < 0 ? -1 : row * conv.columns.in + column);
      }
    }
  }
  return met;
}

}  // namespace condconv

#endif  // CONDCONV_FUSED_H_
