// Per-example convolution with each kernel mixed a panel at a time, where it is used.
//
//   y[b, n, f] = sum_{t, c} x[b, met(n, t), c] * sum_e routing[b, e] * experts[e, t, c, f]
//
// and its gradient by x, which is the same sum over f with the experts transposed. Mixed kernels
// are written into the panels that the inner loop reads anyway, a few hundred rows at a time for a
// group of examples: they stay in the nearest caches, and each value of the experts that is loaded
// serves the whole group. Kernels of a whole batch would go to memory and back, and then be copied
// into such panels.

#include "fused.h"

#include <array>
#include <utility>

#include "panels.h"
#include "parallel.h"

namespace condconv {
namespace {

namespace ffi = xla::ffi;

// Examples whose panels are mixed together.
constexpr int64_t kGroup = 8;
// Floats from one packed row to the next.
constexpr int64_t kStep = kDepth + kLanes;

// Where each result comes from and goes to. Pixels are numbered, row by row.
struct Plan {
  std::vector<int64_t> to;    // of each result, its pixel
  std::vector<int64_t> from;  // [tap][result]: the pixel that it meets, or -1
  int64_t depth, width;       // channels of the pixels met, and of the results
  int64_t from_pixels, to_pixels;
  bool in_place;  // whether the rows that meet a panel need not be packed
};

// A 1x1 convolution without strides or padding.
bool IsPlain(const FusedConvolution& conv) {
  auto plain = [](const Axis& axis) {
    return axis.taps == 1 && axis.stride == 1 && axis.low == 0 && axis.in == axis.out;
  };
  return plain(conv.rows) && plain(conv.columns);
}

Plan ForwardPlan(const FusedConvolution& conv) {
  Plan plan{{},
            MetPixels(conv),
            conv.channels,
            conv.features,
            conv.in_pixels(),
            conv.out_pixels(),
            IsPlain(conv) && conv.channels % kWay != 0};
  for (int64_t pixel = 0; pixel < conv.out_pixels(); ++pixel) plan.to.push_back(pixel);
  return plan;
}

Plan InputGradientPlan(const FusedConvolution& conv) {
  Plan plan{{},
            {},
            conv.features,
            conv.channels,
            conv.out_pixels(),
            conv.in_pixels(),
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
  plan.from.reserve(conv.taps() * plan.to.size());
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
  Pair sums[kRows];
#pragma GCC unroll 12
  for (int i = 0; i < kRows; ++i) {
    sums[i] = is_first ? Pair{} : LoadSomePair(to + pixels[i] * width, count);
  }
  for (int64_t k = 0; k < depth; ++k) {
    const Pair row = LoadPair(panel + k * kWidth);
#pragma GCC unroll 12
    for (int i = 0; i < kRows; ++i) {
      sums[i].first += rows[i * step + k] * row.first;
      sums[i].second += rows[i * step + k] * row.second;
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < kRows; ++i) StoreSomePair(to + pixels[i] * width, sums[i], count);
}

template <int... kRows>
constexpr auto Multiplies(std::integer_sequence<int, kRows...>) {
  using Function = decltype(&Multiply<1>);
  return std::array<Function, sizeof...(kRows)>{&Multiply<kRows + 1>...};
}

// Into how many groups the examples are divided, to be so many tasks. Where mixing costs next to
// nothing, as many: a thread's results then lie together. Where there are few panels, enough for
// every thread, at the price of mixing for fewer at a time. Or else the least.
int64_t Groups(const FusedConvolution& conv, const Plan& plan, int64_t tasks, int64_t panels) {
  constexpr int64_t kFewFloats = 1 << 18, kCheap = 32;
  const bool cheap = conv.experts * conv.kernel_size() <= kFewFloats &&
                     conv.experts * kCheap <= static_cast<int64_t>(plan.to.size());
  const int64_t least = Ceil(conv.batch, kGroup), wanted = cheap ? tasks : Ceil(tasks / 2, panels);
  return std::max(least, std::min(conv.batch, wanted));
}

using MixFunction = decltype(&MixPanels);

void Run(const FusedConvolution& conv, const Plan& plan, MixFunction mix, const float* from,
         const float* experts, const float* routing, float* to, ffi::ThreadPool& pool) {
  static constexpr auto kMultiply = Multiplies(std::make_integer_sequence<int, kMostRows>());
  if (plan.depth == 0) {  // a sum of nothing
    std::fill_n(to, conv.batch * plan.to_pixels * plan.width, 0.0f);
    return;
  }
  const std::vector<Chunk> chunks = Chunks(conv.taps(), plan.depth);
  int64_t panel_size = 0;
  for (const Chunk& chunk : chunks) panel_size = std::max(panel_size, chunk.rows() * kWidth);
  panel_size += kApart;
  const int64_t tasks = 4 * pool.num_threads(), panels = Ceil(plan.width, kWidth);
  const int64_t groups = Groups(conv, plan, tasks, panels);
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
    const Weights weights(conv, experts, routing + begin * conv.experts, group);
    static thread_local std::vector<Lanes> rows, kernels;
    float* const packed = AtLeast(kMostRows * kStep, rows);
    float* const mixed = AtLeast(together * group * panel_size, kernels);
    auto panel = [&](int64_t p, int64_t g) {
      return mixed + ((p - first_panel) * group + g) * panel_size;
    };
    for (const Chunk& chunk : chunks) {
      mix(conv, weights, chunk, first_panel * kWidth,
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
            kMultiply[count - 1](rows_met, step, panel(p, g), chunk.rows(), is_first,
                                 &plan.to[start], plan.width, y + p * kWidth,
                                 std::min(kWidth, plan.width - p * kWidth));
          }
        }
      }
    }
  });
}

ffi::Error ForwardCall(ffi::ThreadPool pool, Integers strides, Integers dilation, Integers low,
                       Buffer x, Buffer experts, Buffer routing, Result y) {
  const FusedConvolution conv =
      MakeFused(x.dimensions(), y->dimensions(), experts.dimensions(), strides, dilation, low);
  Run(conv, ForwardPlan(conv), MixPanels, x.typed_data(), experts.typed_data(),
      routing.typed_data(), y->typed_data(), pool);
  return ffi::Error::Success();
}

ffi::Error InputGradientCall(ffi::ThreadPool pool, Integers strides, Integers dilation,
                             Integers low, Buffer dy, Buffer experts, Buffer routing, Result dx) {
  const FusedConvolution conv =
      MakeFused(dx->dimensions(), dy.dimensions(), experts.dimensions(), strides, dilation, low);
  Run(conv, InputGradientPlan(conv), MixTransposedPanels, dy.typed_data(), experts.typed_data(),
      routing.typed_data(), dx->typed_data(), pool);
  return ffi::Error::Success();
}

auto Binding() { return BindConvolution().Arg<Buffer>().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>(); }

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedForward, ForwardCall, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedInputGradient, InputGradientCall, Binding());

}  // namespace condconv
