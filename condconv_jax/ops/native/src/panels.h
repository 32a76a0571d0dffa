// Mixing kernels into panels, the layout that a matrix product reads: all rows of a few columns.

#ifndef CONDCONV_PANELS_H_
#define CONDCONV_PANELS_H_

#include <utility>
#include <vector>

#include "fused.h"

namespace condconv {

// Rows of a panel: with sixteen lanes 32 KiB, so that a group's panels stay in the second cache.
constexpr int64_t kDepth = 256;

// Rows of the panels that are mixed and used at once: some taps, all of the same channels.
struct Chunk {
  int64_t first_tap, end_tap, begin, end;

  int64_t depth() const { return end - begin; }
  int64_t rows() const { return (end_tap - first_tap) * depth(); }
};

inline std::vector<Chunk> Chunks(int64_t taps, int64_t depth) {
  std::vector<Chunk> chunks;
  const int64_t together = std::max<int64_t>(1, std::min(taps, kDepth / depth));
  const int64_t pieces = Ceil(depth, kDepth), groups = Ceil(taps, together);
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t i = 0; i < pieces; ++i) {
      chunks.push_back({Cut(taps, groups, g), Cut(taps, groups, g + 1), Cut(depth, pieces, i),
                        Cut(depth, pieces, i + 1)});
    }
  }
  return chunks;
}

// The routing weights of a group of examples, without the experts that none of them uses.
struct Weights {
  int64_t group;
  std::vector<const float*> experts;  // those that are used
  std::vector<float> values;          // [expert used][example]

  Weights(const FusedConvolution& conv, const float* all, const float* routing, int64_t group)
      : group(group) {
    for (int64_t e = 0; e < conv.experts; ++e) {
      const size_t before = values.size();
      bool used = false;
      for (int64_t g = 0; g < group; ++g) {
        values.push_back(routing[g * conv.experts + e]);
        used |= values.back() != 0;
      }
      if (used) {
        experts.push_back(all + e * conv.kernel_size());
      } else {
        values.resize(before);
      }
    }
  }
};

// One row of the panels of kCount examples.
template <int kCount>
void MixRow(const Weights& weights, int64_t example, int64_t offset, int64_t count, float* panel,
            int64_t panel_size) {
  Pair sums[kCount] = {};
  const float* weight = weights.values.data() + example;
  for (const float* expert : weights.experts) {
    const Pair row = LoadSomePair(expert + offset, count);
#pragma GCC unroll 8
    for (int g = 0; g < kCount; ++g) {
      sums[g].first += weight[g] * row.first;
      sums[g].second += weight[g] * row.second;
    }
    weight += weights.group;
  }
#pragma GCC unroll 8
  for (int g = 0; g < kCount; ++g) StorePair(panel + g * panel_size, sums[g]);
}

// Panels of the forward pass: rows are input channels, columns the features from `first` on.
inline void MixPanels(const FusedConvolution& conv, const Weights& weights, const Chunk& chunk,
                      int64_t first, int64_t width, float* panels, int64_t panel_size) {
  constexpr int64_t kAhead = 8;
  const int64_t group = weights.group;
  for (int64_t tap = chunk.first_tap; tap < chunk.end_tap; ++tap) {
    for (int64_t c = chunk.begin; c < chunk.end; ++c, panels += kWidth) {
      const int64_t row = (tap * conv.channels + c) * conv.features + first;
      // Rows of an expert are far apart, too far for the processor to see them coming.
      for (const float* expert : weights.experts) {
        const float* ahead = expert + row + kAhead * conv.features;
        for (int64_t f = 0; f < width; f += kLanes) __builtin_prefetch(ahead + f, 0, 2);
      }
      for (int64_t f = 0; f < width; f += kWidth) {
        float* panel = panels + f / kWidth * group * panel_size;
        auto mix = [&](auto function, int64_t g) {
          function(weights, g, row + f, width - f, panel + g * panel_size, panel_size);
        };
        int64_t g = 0;
        for (; g + 8 <= group; g += 8) mix(MixRow<8>, g);
        for (; g + 4 <= group; g += 4) mix(MixRow<4>, g);
        for (; g < group; ++g) mix(MixRow<1>, g);
      }
    }
  }
}

typedef int Indices __attribute__((vector_size(sizeof(Lanes))));

// Exchanges the values of a with index bit kBit for those of b without.
template <int kBit, int... kLane>
inline void Exchange(Lanes& a, Lanes& b, std::integer_sequence<int, kLane...>) {
#ifdef __clang__
  const Lanes low =
      __builtin_shufflevector(a, b, (kLane & kBit ? kLanes + kLane - kBit : kLane)...);
  b = __builtin_shufflevector(a, b, (kLane & kBit ? kLanes + kLane : kLane + kBit)...);
#else  // GCC has that one from version 12 on only
  const Indices of_low = {(kLane & kBit ? kLanes + kLane - kBit : kLane)...};
  const Indices of_high = {(kLane & kBit ? kLanes + kLane : kLane + kBit)...};
  const Lanes low = __builtin_shuffle(a, b, of_low);
  b = __builtin_shuffle(a, b, of_high);
#endif
  a = low;
}

constexpr auto kAllLanes = std::make_integer_sequence<int, kLanes>();

template <int kBit>
inline void Exchange(Lanes* rows) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if (!(i & kBit)) Exchange<kBit>(rows[i], rows[i + kBit], kAllLanes);
  }
}

inline void Transpose(Lanes* rows) {
  if constexpr (kLanes > 8) Exchange<8>(rows);
  if constexpr (kLanes > 4) Exchange<4>(rows);
  Exchange<2>(rows);
  Exchange<1>(rows);
}

// Panels of the input gradient: rows are features, columns the input channels from `first` on.
inline void MixTransposedPanels(const FusedConvolution& conv, const Weights& weights,
                                const Chunk& chunk, int64_t first, int64_t width, float* panels,
                                int64_t panel_size) {
  const int64_t experts = weights.experts.size();
  // Squares of kLanes channels by kLanes features, one of each expert, next to each other.
  static thread_local std::vector<Lanes> squares;
  AtLeast(experts * kLanes * kLanes, squares);
  for (int64_t tap = chunk.first_tap; tap < chunk.end_tap; ++tap) {
    for (int64_t f = chunk.begin; f < chunk.end; f += kLanes) {
      const int64_t count = std::min<int64_t>(kLanes, chunk.end - f);
      for (int64_t c = 0; c < width; c += kLanes) {
        const int64_t channels = std::min<int64_t>(kLanes, width - c);
        for (int64_t e = 0; e < experts; ++e) {
          const float* from =
              weights.experts[e] + (tap * conv.channels + first + c) * conv.features + f;
          for (int64_t i = 0; i < channels; ++i, from += conv.features) {
            __builtin_prefetch(from + 2 * kLanes, 0, 2);
            squares[e * kLanes + i] = LoadSome(from, count);
          }
        }
        float* to = panels + c / kWidth * weights.group * panel_size + c % kWidth;
        for (int64_t g = 0; g < weights.group; ++g, to += panel_size) {
          Lanes rows[kLanes] = {};
          for (int64_t e = 0; e < experts; ++e) {
            const float weight = weights.values[e * weights.group + g];
#pragma GCC unroll 16
            for (int i = 0; i < kLanes; ++i) rows[i] += weight * squares[e * kLanes + i];
          }
          Transpose(rows);
#pragma GCC unroll 16
          for (int i = 0; i < kLanes; ++i) {
            if (i < count) Store(to + i * kWidth, rows[i]);
          }
        }
      }
      panels += count * kWidth;
    }
  }
}

}  // namespace condconv

#endif  // CONDCONV_PANELS_H_
