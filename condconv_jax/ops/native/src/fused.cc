// Per-example convolution with each kernel mixed a panel at a time, where it is used.
//
//   y[b, n, f] = sum_{t, c} x[b, met(n, t), c] * sum_e routing[b, e] * experts[e, t, c, f]
//
// and its gradient by x, which is the same sum over f with the experts transposed. Mixed kernels
// are written into the panels that the inner loop reads anyway, a few hundred rows of 32 columns
// for a group of examples: they stay in the nearest caches, and each value of the experts that is
// loaded serves the whole group. Kernels of a whole batch would go to memory and back, and then be
// copied into such panels.

#include <array>
#include <utility>

#include "fused.h"
#include "parallel.h"

namespace condconv {
namespace {

namespace ffi = xla::ffi;

using Buffer = ffi::Buffer<ffi::F32>;
using Result = ffi::Result<ffi::Buffer<ffi::F32>>;

// Examples whose panels are mixed together.
constexpr int64_t kGroup = 8;
// Rows of a panel: 32 KiB, the group's 256.
constexpr int64_t kDepth = 256;
// Floats of 4 KiB. Rows that are so far apart all fall onto the same few lines of a cache.
constexpr int64_t kWay = 1024;
// Floats from one packed row to the next.
constexpr int64_t kStep = kDepth + kLanes;

// Where each result comes from and goes to. Pixels are numbered, row by row.
struct Plan {
  std::vector<int64_t> to;       // of each result, its pixel
  std::vector<int64_t> from;     // [tap][result]: the pixel that it meets, or -1
  int64_t depth, width;          // channels of the pixels met, and of the results
  int64_t from_pixels, to_pixels;
  bool in_place;                 // whether the rows that meet a panel need not be packed
};

// A 1x1 convolution without strides or padding.
bool IsPlain(const Fused& conv) {
  auto plain = [](const Line& line) {
    return line.taps == 1 && line.stride == 1 && line.low == 0 && line.in == line.out;
  };
  return plain(conv.rows) && plain(conv.columns);
}

Plan ForwardPlan(const Fused& conv) {
  Plan plan{{}, MetPixels(conv), conv.channels, conv.features, conv.in_pixels(), conv.out_pixels(),
            IsPlain(conv) && conv.channels % kWay != 0};
  for (int64_t pixel = 0; pixel < conv.out_pixels(); ++pixel) plan.to.push_back(pixel);
  return plan;
}

Plan InputGradientPlan(const Fused& conv) {
  Plan plan{{}, {}, conv.features, conv.channels, conv.out_pixels(), conv.in_pixels(),
            IsPlain(conv) && conv.features % kWay != 0};
  // Neighbours in this order meet the same taps, so those that meet none can be left out together.
  for (int64_t p = 0; p < conv.rows.stride; ++p) {
    for (int64_t q = 0; q < conv.columns.stride; ++q) {
      for (int64_t row = p; row < conv.rows.in; row += conv.rows.stride) {
        for (int64_t column = q; column < conv.columns.in; column += conv.columns.stride) {
          plan.to.push_back(row * conv.columns.in + column);
        }
      }
    }
  }
  for (int64_t i = 0; i < conv.rows.taps; ++i) {
    for (int64_t j = 0; j < conv.columns.taps; ++j) {
      for (int64_t pixel : plan.to) {
        const int64_t row = MetBy(conv.rows, pixel / conv.columns.in, i);
        const int64_t column = MetBy(conv.columns, pixel % conv.columns.in, j);
        plan.from.push_back(row < 0 || column < 0 ? -1 : row * conv.columns.out + column);
      }
    }
  }
  return plan;
}

// Rows of the panels that are mixed and used at once: some taps, all of the same channels.
struct Chunk {
  int64_t first_tap, end_tap, begin, end;

  int64_t depth() const { return end - begin; }
  int64_t rows() const { return (end_tap - first_tap) * depth(); }
};

std::vector<Chunk> Chunks(int64_t taps, int64_t depth) {
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

// The routing weights of a group, [expert][example].
struct Weights {
  std::vector<float> values;
  int64_t group;

  Weights(const float* routing, int64_t group, int64_t experts)
      : values(group * experts), group(group) {
    for (int64_t g = 0; g < group; ++g) {
      for (int64_t e = 0; e < experts; ++e) values[e * group + g] = routing[g * experts + e];
    }
  }
};

// One row of the panels of kCount examples.
template <int kCount>
void MixRow(const Fused& conv, const float* experts, const float* weights, int64_t group,
            int64_t count, float* panel, int64_t panel_size) {
  Lanes sums[kCount][kVectors] = {};
  for (int64_t e = 0; e < conv.experts; ++e) {
    const float* row = experts + e * conv.kernel_size();
    const Lanes first = LoadSome(row, count);
    const Lanes second = count > kLanes ? LoadSome(row + kLanes, count - kLanes) : Lanes{};
#pragma GCC unroll 8
    for (int g = 0; g < kCount; ++g) {
      sums[g][0] += weights[e * group + g] * first;
      sums[g][1] += weights[e * group + g] * second;
    }
  }
#pragma GCC unroll 8
  for (int g = 0; g < kCount; ++g) {
    Store(panel + g * panel_size, sums[g][0]);
    Store(panel + g * panel_size + kLanes, sums[g][1]);
  }
}

// Panels of the forward pass: rows are input channels, columns the features from `first` on.
void MixPanels(const Fused& conv, const float* experts, const Weights& weights, const Chunk& chunk,
               int64_t first, int64_t width, float* panels, int64_t panel_size) {
  constexpr int64_t kAhead = 8;
  const int64_t group = weights.group;
  for (int64_t tap = chunk.first_tap; tap < chunk.end_tap; ++tap) {
    for (int64_t c = chunk.begin; c < chunk.end; ++c, panels += kWidth) {
      const float* row = experts + (tap * conv.channels + c) * conv.features + first;
      // Rows of an expert are far apart, too far for the processor to see them coming.
      for (int64_t e = 0; e < conv.experts; ++e) {
        const float* ahead = row + e * conv.kernel_size() + kAhead * conv.features;
        for (int64_t f = 0; f < width; f += kLanes) __builtin_prefetch(ahead + f, 0, 2);
      }
      for (int64_t f = 0; f < width; f += kWidth) {
        float* panel = panels + f / kWidth * group * panel_size;
        auto mix = [&](auto function, int64_t g) {
          function(conv, row + f, &weights.values[g], group, width - f, panel + g * panel_size,
                   panel_size);
        };
        int64_t g = 0;
        for (; g + 8 <= group; g += 8) mix(MixRow<8>, g);
        for (; g + 4 <= group; g += 4) mix(MixRow<4>, g);
        for (; g < group; ++g) mix(MixRow<1>, g);
      }
    }
  }
}

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define CONDCONV_SHUFFLES
#endif
#endif

// Exchanges the values of a with index bit kBit for those of b without.
template <int kBit, int... kLane>
inline void Exchange(Lanes& a, Lanes& b, std::integer_sequence<int, kLane...>) {
#ifdef CONDCONV_SHUFFLES
  const Lanes low = __builtin_shufflevector(a, b, (kLane & kBit ? kLanes + kLane - kBit : kLane)...);
  b = __builtin_shufflevector(a, b, (kLane & kBit ? kLanes + kLane : kLane + kBit)...);
  a = low;
#else
  for (int lane = 0; lane < kLanes; ++lane) {
    if (lane & kBit) std::swap(a[lane], b[lane - kBit]);
  }
#endif
}

template <int kBit>
inline void Exchange(Lanes* rows) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if (!(i & kBit)) Exchange<kBit>(rows[i], rows[i + kBit], std::make_integer_sequence<int, kLanes>());
  }
}

inline void Transpose(Lanes* rows) {
  if constexpr (kLanes > 8) Exchange<8>(rows);
  if constexpr (kLanes > 4) Exchange<4>(rows);
  Exchange<2>(rows);
  Exchange<1>(rows);
}

// Panels of the input gradient: rows are features, columns the input channels from `first` on.
void MixTransposedPanels(const Fused& conv, const float* experts, const Weights& weights,
                         const Chunk& chunk, int64_t first, int64_t width, float* panels,
                         int64_t panel_size) {
  // Squares of kLanes channels by kLanes features, one of each expert, next to each other.
  static thread_local std::vector<Lanes> squares;
  AtLeast(conv.experts * kLanes * kLanes, squares);
  for (int64_t tap = chunk.first_tap; tap < chunk.end_tap; ++tap) {
    for (int64_t f = chunk.begin; f < chunk.end; f += kLanes) {
      const int64_t count = std::min<int64_t>(kLanes, chunk.end - f);
      for (int64_t c = 0; c < width; c += kLanes) {
        const int64_t channels = std::min<int64_t>(kLanes, width - c);
        for (int64_t e = 0; e < conv.experts; ++e) {
          const float* from = experts + e * conv.kernel_size() +
                              (tap * conv.channels + first + c) * conv.features + f;
          for (int64_t i = 0; i < channels; ++i, from += conv.features) {
            __builtin_prefetch(from + 2 * kLanes, 0, 2);
            squares[e * kLanes + i] = LoadSome(from, count);
          }
        }
        float* to = panels + c / kWidth * weights.group * panel_size + c % kWidth;
        for (int64_t g = 0; g < weights.group; ++g, to += panel_size) {
          Lanes rows[kLanes] = {};
          for (int64_t e = 0; e < conv.experts; ++e) {
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

// Copies what `count` results from `result` on meet, a row for each; returns whether there is any.
bool PackRows(const Plan& plan, const Chunk& chunk, int64_t result, int64_t count,
              const float* from, float* rows) {
  bool any = false;
  for (int64_t i = 0; i < count; ++i) {
    float* to = rows + i * kStep;
    for (int64_t tap = chunk.first_tap; tap < chunk.end_tap; ++tap, to += chunk.depth()) {
      const int64_t pixel = plan.from[tap * plan.to.size() + result + i];
      if (pixel < 0) {
        std::fill_n(to, chunk.depth(), 0.0f);
      } else {
        std::copy_n(from + pixel * plan.depth + chunk.begin, chunk.depth(), to);
        any = true;
      }
    }
  }
  return any;
}

// Adds rows times panel, or sets to it, kRows results. `pixels` is where they go.
template <int kRows>
void Multiply(const float* rows, int64_t step, const float* panel, int64_t depth, bool is_first,
              const int64_t* pixels, int64_t width, float* to, int64_t count) {
  Lanes sums[kRows][kVectors];
  const int64_t more = count - kLanes;
#pragma GCC unroll 12
  for (int i = 0; i < kRows; ++i) {
    const float* sum = to + pixels[i] * width;
    sums[i][0] = is_first ? Lanes{} : LoadSome(sum, count);
    sums[i][1] = is_first || more <= 0 ? Lanes{} : LoadSome(sum + kLanes, more);
  }
  for (int64_t k = 0; k < depth; ++k) {
    const Lanes first = Load(panel + k * kWidth), second = Load(panel + k * kWidth + kLanes);
#pragma GCC unroll 12
    for (int i = 0; i < kRows; ++i) {
      sums[i][0] += rows[i * step + k] * first;
      sums[i][1] += rows[i * step + k] * second;
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < kRows; ++i) {
    StoreSome(to + pixels[i] * width, sums[i][0], count);
    if (more > 0) StoreSome(to + pixels[i] * width + kLanes, sums[i][1], more);
  }
}

template <int... kRows>
constexpr auto Multiplies(std::integer_sequence<int, kRows...>) {
  using Function = decltype(&Multiply<1>);
  return std::array<Function, sizeof...(kRows)>{&Multiply<kRows + 1>...};
}

// Into how many groups the examples are divided: as many as there are tasks to be, where mixing
// costs next to nothing, so that a thread's results lie together; or else the least.
int64_t Groups(const Fused& conv, const Plan& plan, int64_t tasks) {
  constexpr int64_t kFewFloats = 1 << 18, kCheap = 32;
  const bool cheap = conv.experts * conv.kernel_size() <= kFewFloats &&
                     conv.experts * kCheap <= static_cast<int64_t>(plan.to.size());
  const int64_t least = Ceil(conv.batch, kGroup);
  return cheap ? std::max(least, std::min(conv.batch, tasks)) : least;
}

using MixFunction = decltype(&MixPanels);

void Run(const Fused& conv, const Plan& plan, MixFunction mix, const float* from,
         const float* experts, const float* routing, float* to, ffi::ThreadPool& pool) {
  static constexpr auto kMultiply = Multiplies(std::make_integer_sequence<int, kMostRows>());
  const std::vector<Chunk> chunks = Chunks(conv.taps(), plan.depth);
  int64_t panel_size = 0;
  for (const Chunk& chunk : chunks) panel_size = std::max(panel_size, chunk.rows() * kWidth);
  panel_size += kApart;
  const int64_t tasks = 4 * pool.num_threads();
  const int64_t groups = Groups(conv, plan, tasks), panels = Ceil(plan.width, kWidth);
  // Two panels share the packed rows, where that leaves work for every thread.
  const int64_t together = groups * panels >= tasks ? 2 : 1;
  const int64_t parts = Ceil(panels, together), results = plan.to.size();
  const int64_t blocks = Ceil(results, kMostRows);
  const int64_t step = plan.in_place ? plan.depth : kStep;
  // All groups before the next panels, or all panels before the next group: so that the larger of
  // experts and inputs comes from memory once.
  const bool experts_stay =
      conv.experts * conv.kernel_size() > conv.batch * plan.from_pixels * plan.depth;
  ParallelFor(pool, groups * parts, [&](int64_t task) {
    const int64_t i = experts_stay ? task % groups : task / parts;
    const int64_t begin = Cut(conv.batch, groups, i);
    const int64_t group = Cut(conv.batch, groups, i + 1) - begin;
    const int64_t first_panel = (experts_stay ? task / groups : task % parts) * together;
    const int64_t end_panel = std::min(panels, first_panel + together);
    const Weights weights(routing + begin * conv.experts, group, conv.experts);
    static thread_local std::vector<Lanes> rows, kernels;
    float* const packed = AtLeast(kMostRows * kStep, rows);
    float* const mixed = AtLeast(together * group * panel_size, kernels);
    auto panel = [&](int64_t p, int64_t g) {
      return mixed + ((p - first_panel) * group + g) * panel_size;
    };
    for (const Chunk& chunk : chunks) {
      mix(conv, experts, weights, chunk, first_panel * kWidth,
          std::min(end_panel * kWidth, plan.width) - first_panel * kWidth, mixed, panel_size);
      const bool is_first = &chunk == &chunks.front();
      for (int64_t g = 0; g < group; ++g) {
        const float* x = from + (begin + g) * plan.from_pixels * plan.depth;
        float* y = to + (begin + g) * plan.to_pixels * plan.width;
        for (int64_t block = 0; block < blocks; ++block) {
          const int64_t start = Cut(results, blocks, block);
          const int64_t count = Cut(results, blocks, block + 1) - start;
          const float* rows_met = plan.in_place ? x + start * plan.depth + chunk.begin : packed;
          if (!plan.in_place && !PackRows(plan, chunk, start, count, x, packed) && !is_first) {
            continue;
          }
          for (int64_t p = first_panel; p < end_panel; ++p) {
            kMultiply[count - 1](rows_met, step, panel(p, g), chunk.rows(), is_first, &plan.to[start],
                                 plan.width, y + p * kWidth,
                                 std::min(kWidth, plan.width - p * kWidth));
          }
        }
      }
    }
  });
}

ffi::Error ForwardCall(ffi::ThreadPool pool, Span strides, Span dilation, Span low, Buffer x,
                       Buffer experts, Buffer routing, Result y) {
  const Fused conv = MakeFused(x.dimensions(), y->dimensions(), experts.dimensions(), strides,
                               dilation, low);
  Run(conv, ForwardPlan(conv), MixPanels, x.typed_data(), experts.typed_data(),
      routing.typed_data(), y->typed_data(), pool);
  return ffi::Error::Success();
}

ffi::Error InputGradientCall(ffi::ThreadPool pool, Span strides, Span dilation, Span low, Buffer dy,
                             Buffer experts, Buffer routing, Result dx) {
  const Fused conv = MakeFused(dx->dimensions(), dy.dimensions(), experts.dimensions(), strides,
                               dilation, low);
  Run(conv, InputGradientPlan(conv), MixTransposedPanels, dy.typed_data(), experts.typed_data(),
      routing.typed_data(), dx->typed_data(), pool);
  return ffi::Error::Success();
}

auto Binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Attr<Span>("strides")
      .Attr<Span>("dilation")
      .Attr<Span>("low")
      .Arg<Buffer>()
      .Arg<Buffer>()
      .Arg<Buffer>()
      .Ret<Buffer>();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedForward, ForwardCall, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedInputGradient, InputGradientCall, Binding());

}  // namespace condconv
