// Gradients of a fused convolution by its experts and its routing weights.
//
//   d_kernel[b, t, c, f] = sum_n x[b, met(n, t), c] * dy[b, n, f]
//   d_experts[e] = sum_b routing[b, e] * d_kernel[b],  d_routing[b, e] = <d_kernel[b], experts[e]>
//
// The gradients of the kernels are computed a tile at a time for a group of examples, and used for
// both sums while they are in the nearest caches.

#include <array>
#include <memory>
#include <utility>

#include "fused.h"
#include "parallel.h"

namespace condconv {
namespace {

namespace ffi = xla::ffi;

// Examples whose tiles are kept together. A tile has kTileRows input channels and kTileColumns
// features, with sixteen lanes 24 KiB, and is wide: experts are read faster the longer their rows.
constexpr int64_t kGroup = 16;
constexpr int64_t kTileRows = 48;
constexpr int64_t kTileColumns = 4 * kWidth;
// Tasks enough for the threads of a small machine, whatever machine this is.
constexpr int64_t kEnoughTasks = 8;
// Vectors of a row that are summed over examples and experts at a time; each needs two registers.
constexpr int kColumns = kMostRows > 6 ? 8 : 4;
// Rows that experts are fetched ahead.
constexpr int64_t kAhead = 2;
// Output pixels taken at a time; with sixteen lanes 12 KiB of a panel's gradients.
constexpr int64_t kPixels = 96;

// tile[i, :] += sum_n a[met[n], i] * b[n, :], with kRows values and one panel's width for each n;
// a pixel that is padding has zeros.
template <int kRows>
void AddOuterProducts(const float* a, const int64_t* met, int64_t channels, const float* zeros,
                      const float* b, int64_t step, int64_t count, bool is_first, float* tile) {
  Pair sums[kRows];
#pragma GCC unroll 12
  for (int i = 0; i < kRows; ++i) sums[i] = is_first ? Pair{} : LoadPair(tile + i * kTileColumns);
  for (int64_t n = 0; n < count; ++n) {
    const Pair row = LoadPair(b + n * step);
    const float* pixel = met[n] < 0 ? zeros : a + met[n] * channels;
#pragma GCC unroll 12
    for (int i = 0; i < kRows; ++i) {
      sums[i].first += pixel[i] * row.first;
      sums[i].second += pixel[i] * row.second;
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < kRows; ++i) StorePair(tile + i * kTileColumns, sums[i]);
}

template <int... kRows>
constexpr auto AllOuterProducts(std::integer_sequence<int, kRows...>) {
  using Function = decltype(&AddOuterProducts<1>);
  return std::array<Function, sizeof...(kRows)>{&AddOuterProducts<kRows + 1>...};
}

constexpr auto kOuterProducts = AllOuterProducts(std::make_integer_sequence<int, kMostRows>());

// A part of the kernels, the same of every example and expert.
struct Tile {
  int64_t tap, first_row, rows, first_column, columns;
};

std::vector<Tile> Tiles(const FusedConvolution& conv) {
  std::vector<Tile> tiles;
  const int64_t down = Ceil(conv.channels, kTileRows), across = Ceil(conv.features, kTileColumns);
  for (int64_t tap = 0; tap < conv.taps(); ++tap) {
    for (int64_t i = 0; i < down; ++i) {
      const int64_t row = Cut(conv.channels, down, i);
      for (int64_t j = 0; j < across; ++j) {
        const int64_t column = j * kTileColumns;
        tiles.push_back({tap, row, Cut(conv.channels, down, i + 1) - row, column,
                         std::min(kTileColumns, conv.features - column)});
      }
    }
  }
  return tiles;
}

// The tile of one example's kernel gradient, (rows, kTileColumns).
void KernelTile(const FusedConvolution& conv, const Tile& tile, const int64_t* met, const float* x,
                const float* dy, float* packed, float* out) {
  static constexpr float kZeros[kMostRows] = {};
  const int64_t pixels = conv.out_pixels(), blocks = Ceil(tile.rows, kMostRows);
  for (int64_t begin = 0; begin < pixels; begin += kPixels) {
    const int64_t length = std::min(kPixels, pixels - begin);
    for (int64_t column = 0; column < tile.columns; column += kWidth) {
      const int64_t count = tile.columns - column;
      const float* slopes = dy + begin * conv.features + tile.first_column + column;
      int64_t step = conv.features;
      // The last panel is filled up with zeros; and rows kWay apart would crowd each other out.
      if (count < kWidth || conv.features % kWay == 0) {
        for (int64_t n = 0; n < length; ++n) {
          StorePair(packed + n * kWidth, LoadSomePair(slopes + n * conv.features, count));
        }
        slopes = packed;
        step = kWidth;
      }
      for (int64_t block = 0; block < blocks; ++block) {
        const int64_t row = Cut(tile.rows, blocks, block);
        kOuterProducts[Cut(tile.rows, blocks, block + 1) - row - 1](
            x + tile.first_row + row, met + begin, conv.channels, kZeros, slopes, step, length,
            begin == 0, out + row * kTileColumns + column);
      }
    }
  }
}

// What kCount times kLanes columns of a row contribute to the gradients: `tiles` of a group of
// examples, kernels and gradients of all experts. Only `count` columns are of the kernels.
template <int kCount>
void Contribute(const FusedConvolution& conv, const float* tiles, int64_t tile_size, int64_t group,
                const float* routing, const float* experts, int64_t count, bool is_first,
                float* d_experts, Lanes* d_routing) {
  for (int64_t e = 0; e < conv.experts; ++e) {
    float* slope = d_experts + e * conv.kernel_size();
    const float* expert = experts + e * conv.kernel_size();
    Lanes sums[kCount], kernel[kCount];
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      // As in the forward pass, rows are too far apart to be seen coming.
      __builtin_prefetch(expert + kAhead * conv.features + i * kLanes, 0, 2);
      __builtin_prefetch(slope + kAhead * conv.features + i * kLanes, 1, 2);
      kernel[i] = LoadSome(expert + i * kLanes, count - i * kLanes);
      sums[i] = is_first ? Lanes{} : LoadSome(slope + i * kLanes, count - i * kLanes);
    }
    for (int64_t g = 0; g < group; ++g) {
      const float weight = routing[g * conv.experts + e];
      Lanes even = {}, odd = {};
#pragma GCC unroll 8
      for (int i = 0; i < kCount; ++i) {
        const Lanes gradient = Load(tiles + g * tile_size + i * kLanes);
        sums[i] += weight * gradient;
        (i % 2 ? odd : even) += kernel[i] * gradient;
      }
      d_routing[g * conv.experts + e] += even + odd;
    }
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) {
      StoreSome(slope + i * kLanes, sums[i], count - i * kLanes);
    }
  }
}

// The gradients that examples [begin, end) contribute to one tile: sets d_experts there, and adds
// to d_routing.
void TileGradient(const FusedConvolution& conv, const Tile& tile, const int64_t* met, int64_t begin,
                  int64_t end, const float* x, const float* dy, const float* experts,
                  const float* routing, float* d_experts, float* d_routing) {
  static thread_local std::vector<Lanes> kernels, slopes, totals;
  const int64_t tile_size = tile.rows * kTileColumns + kApart;
  float* const kept = AtLeast(kGroup * tile_size, kernels);
  float* const packed = AtLeast(kPixels * kWidth, slopes);
  for (int64_t first = begin; first < end; first += kGroup) {
    const int64_t group = std::min(kGroup, end - first);
    for (int64_t g = 0; g < group; ++g) {
      KernelTile(conv, tile, met, x + (first + g) * conv.in_pixels() * conv.channels,
                 dy + (first + g) * conv.out_pixels() * conv.features, packed,
                 kept + g * tile_size);
    }
    totals.assign(group * conv.experts, Lanes{});
    for (int64_t row = 0; row < tile.rows; ++row) {
      const int64_t offset =
          (tile.tap * conv.channels + tile.first_row + row) * conv.features + tile.first_column;
      auto contribute = [&](auto function, int64_t column) {
        function(conv, kept + row * kTileColumns + column, tile_size, group,
                 routing + first * conv.experts, experts + offset + column, tile.columns - column,
                 first == begin, d_experts + offset + column, totals.data());
      };
      int64_t column = 0;
      for (; column + kColumns * kLanes <= tile.columns; column += kColumns * kLanes) {
        contribute(Contribute<kColumns>, column);
      }
      for (; column + kColumns / 2 * kLanes <= tile.columns; column += kColumns / 2 * kLanes) {
        contribute(Contribute<kColumns / 2>, column);
      }
      for (; column < tile.columns; column += kLanes) contribute(Contribute<1>, column);
    }
    for (int64_t k = 0; k < group * conv.experts; ++k) {
      for (int lane = 0; lane < kLanes; ++lane) {
        d_routing[first * conv.experts + k] += totals[k][lane];
      }
    }
  }
}

void Gradient(const FusedConvolution& conv, const float* x, const float* dy, const float* experts,
              const float* routing, float* d_experts, float* d_routing, ffi::ThreadPool& pool) {
  if (conv.batch == 0 || conv.out_pixels() == 0) {  // a sum of nothing
    std::fill_n(d_experts, conv.experts * conv.kernel_size(), 0.0f);
    std::fill_n(d_routing, conv.batch * conv.experts, 0.0f);
    return;
  }
  const std::vector<int64_t> met = MetPixels(conv);
  const std::vector<Tile> tiles = Tiles(conv);
  const int64_t count = tiles.size(), size = conv.experts * conv.kernel_size();
  const int64_t weights = conv.batch * conv.experts;
  // Small kernels are a few tiles only; then parts of the batch are tasks, too. Each part has sums
  // of its own, and all are added up in one order: the same result however many threads there are.
  const int64_t parts = std::min(conv.batch, Ceil(kEnoughTasks, count));
  const std::unique_ptr<float[]> parts_of_experts(new float[(parts - 1) * size]);
  std::vector<float> parts_of_routing(count * weights);
  ParallelFor(pool, count * parts, [&](int64_t task) {
    const int64_t i = task / parts, part = task % parts;
    TileGradient(conv, tiles[i], &met[tiles[i].tap * conv.out_pixels()],
                 Cut(conv.batch, parts, part), Cut(conv.batch, parts, part + 1), x, dy, experts,
                 routing, part == 0 ? d_experts : &parts_of_experts[(part - 1) * size],
                 &parts_of_routing[i * weights]);
  });
  for (int64_t part = 1; part < parts; ++part) {
    for (int64_t k = 0; k < size; ++k) d_experts[k] += parts_of_experts[(part - 1) * size + k];
  }
  std::fill_n(d_routing, weights, 0.0f);
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t k = 0; k < weights; ++k) d_routing[k] += parts_of_routing[i * weights + k];
  }
}

ffi::Error GradientCall(ffi::ThreadPool pool, Integers strides, Integers dilation, Integers low,
                        Buffer x, Buffer dy, Buffer experts, Buffer routing, Result d_experts,
                        Result d_routing) {
  const FusedConvolution conv =
      MakeFused(x.dimensions(), dy.dimensions(), experts.dimensions(), strides, dilation, low);
  Gradient(conv, x.typed_data(), dy.typed_data(), experts.typed_data(), routing.typed_data(),
           d_experts->typed_data(), d_routing->typed_data(), pool);
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedParameterGradient, GradientCall,
                              BindConvolution()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Ret<Buffer>()
                                  .Ret<Buffer>());

}  // namespace condconv
