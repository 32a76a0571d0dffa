// Depthwise convolution of (b, h, w, c) with kernels (n, kh, kw, c), n = b or 1, and its gradients.
//
// The work is cut into tasks of one example and some channels. A task first packs its part of the
// input into zero-padded images of a few channels, small enough for the nearest caches: the
// products then need no checks of the border, and make no strides of c, which for a power of two
// all fall onto the same few cache lines.

#include <algorithm>
#include <vector>

#include "convolution.h"
#include "lanes.h"
#include "parallel.h"

namespace condconv {
namespace {

namespace ffi = xla::ffi;

// Channels of one task: packed together, because a cache line fetched alone is the slowest kind,
// and worked on kLanes at a time.
constexpr int64_t kGroup = 4 * kLanes;

// Some channels of one example, an image with zeros around it for each kLanes of them.
class Images {
 public:
  // Of `channels` in all, at most kGroup.
  Images(int64_t rows, int64_t columns, int64_t channels)
      : rows_(rows),
        columns_(columns),
        channels_(channels),
        pixels_(Ceil(channels, kLanes) * rows * columns) {}

  // Copies rows x columns pixels, `step` floats from each to the next, the first to (top, left).
  void Pack(const float* from, int64_t rows, int64_t columns, int64_t step, int64_t top,
            int64_t left) {
    const int64_t first = std::max<int64_t>(0, -left), last = std::min(columns, columns_ - left);
    for (int64_t r = std::max<int64_t>(0, -top); r < std::min(rows, rows_ - top); ++r) {
      for (int64_t c = first; c < last; ++c) {
        const float* pixel = from + (r * columns + c) * step;
        Lanes* to = &pixels_[(r + top) * columns_ + c + left];
        for (int64_t channel = 0; channel < channels_; channel += kLanes) {
          *to = LoadSome(pixel + channel, channels_ - channel);
          to += rows_ * columns_;
        }
      }
    }
  }

  int64_t Offset(int64_t row, int64_t column) const { return (row * columns_ + column) * kLanes; }

  // A pixel of the image that `channel` is the first of.
  const float* At(int64_t channel, int64_t row, int64_t column) const {
    return reinterpret_cast<const float*>(
        &pixels_[(channel / kLanes * rows_ + row) * columns_ + column]);
  }

 private:
  int64_t rows_, columns_, channels_;
  std::vector<Lanes> pixels_;  // aligned: a load never spans two cache lines
};

// What one tap adds to a row of results: kernel * from[offset + step * t], t = 0, 1, ...
struct Tap {
  Lanes kernel;
  int64_t offset;
};

using Taps = std::vector<Tap>;

// Sums of the taps at `kCount` neighbouring results, each in a register. A stride known to the
// compiler (0: not known) becomes part of the instructions.
template <int kCount, int kStride>
void Sum(const Taps& taps, const float* from, int64_t stride, float* to, int64_t to_step,
         int64_t count) {
  const int64_t step = (kStride ? kStride : stride) * kLanes;
  Lanes sums[kCount] = {};
  for (const Tap& tap : taps) {
    const float* met = from + tap.offset;
#pragma GCC unroll 8
    for (int i = 0; i < kCount; ++i) sums[i] += Load(met + i * step) * tap.kernel;
  }
#pragma GCC unroll 8
  for (int i = 0; i < kCount; ++i) StoreSome(to + i * to_step, sums[i], count);
}

// A row of results, in runs of equal length, at most eight.
template <int kStride>
void SumRow(const Taps& taps, const float* from, int64_t length, int64_t stride, float* to,
            int64_t to_step, int64_t count) {
  using Function = void (*)(const Taps&, const float*, int64_t, float*, int64_t, int64_t);
  static constexpr Function kSums[] = {nullptr,         Sum<1, kStride>, Sum<2, kStride>,
                                       Sum<3, kStride>, Sum<4, kStride>, Sum<5, kStride>,
                                       Sum<6, kStride>, Sum<7, kStride>, Sum<8, kStride>};
  const int64_t runs = Ceil(length, 8);
  for (int64_t start = 0; start < length;) {
    const int64_t run = std::min(length - start, Ceil(length, runs));
    kSums[run](taps, from + start * stride * kLanes, stride, to + start * to_step, to_step, count);
    start += run;
  }
}

struct Convolution {
  Axis rows, columns;
  int64_t batch, channels, kernels;

  int64_t groups() const { return Ceil(channels, kGroup); }
  int64_t in_pixels() const { return rows.in * columns.in; }
  int64_t out_pixels() const { return rows.out * columns.out; }
  int64_t taps() const { return rows.taps * columns.taps; }
};

int64_t Padded(const Axis& axis) {
  return (axis.out - 1) * axis.stride + (axis.taps - 1) * axis.dilation + 1;
}

// How many strips of rows to cut an image into, so that every thread has some of them: one image of
// few channels would be a single task. Of at least four rows, for the rows between are packed
// twice.
int64_t Strips(const Convolution& conv, int64_t rows, const ffi::ThreadPool& pool) {
  const int64_t tasks = std::max<int64_t>(1, conv.batch * conv.groups());
  const int64_t wanted = 2 * pool.num_threads() / tasks;
  return std::max<int64_t>(1, std::min(wanted, rows / 4));
}

void Forward(const Convolution& conv, const float* x, const float* kernels, float* y,
             ffi::ThreadPool& pool) {
  const Axis &rows = conv.rows, &columns = conv.columns;
  const auto sum_row = columns.stride == 1   ? SumRow<1>
                       : columns.stride == 2 ? SumRow<2>
                                             : SumRow<0>;
  const int64_t strips = Strips(conv, rows.out, pool);
  ParallelFor(pool, conv.batch * conv.groups() * strips, [&](int64_t task) {
    const int64_t strip = task % strips, rest = task / strips;
    const int64_t example = rest / conv.groups(), first = rest % conv.groups() * kGroup;
    const int64_t count = std::min(kGroup, conv.channels - first);
    const int64_t begin = strip * rows.out / strips, end = (strip + 1) * rows.out / strips;
    Axis some = rows;
    some.out = end - begin;
    Images images(Padded(some), Padded(columns), count);
    images.Pack(x + example * conv.in_pixels() * conv.channels + first, rows.in, columns.in,
                conv.channels, rows.low - begin * rows.stride, columns.low);
    const float* kernel =
        kernels + (conv.kernels == 1 ? 0 : example) * conv.taps() * conv.channels + first;
    float* to = y + example * conv.out_pixels() * conv.channels + first;
    Taps taps;
    taps.reserve(conv.taps());
    for (int64_t channel = 0; channel < count; channel += kLanes) {
      taps.clear();
      for (int64_t i = 0; i < rows.taps; ++i) {
        for (int64_t j = 0; j < columns.taps; ++j) {
          taps.push_back(
              {LoadSome(kernel + (i * columns.taps + j) * conv.channels + channel, count - channel),
               images.Offset(i * rows.dilation, j * columns.dilation)});
        }
      }
      for (int64_t row = begin; row < end; ++row) {
        sum_row(taps, images.At(channel, (row - begin) * rows.stride, 0), columns.out,
                columns.stride, to + row * columns.out * conv.channels + channel, conv.channels,
                count - channel);
      }
    }
  });
}

// Of the inputs t * stride + residue along an axis: how many there are, and which taps they meet,
// each with the output that the first of them meets it in.
struct Residue {
  int64_t length;
  std::vector<std::pair<int64_t, int64_t>> taps;
};

std::vector<Residue> Residues(const Axis& axis) {
  std::vector<Residue> residues(axis.stride);
  for (int64_t r = 0; r < axis.stride; ++r) {
    residues[r].length = Ceil(axis.in - r, axis.stride);
    for (int64_t tap = 0; tap < axis.taps; ++tap) {
      const int64_t offset = r + axis.low - tap * axis.dilation;
      if (offset % axis.stride == 0) residues[r].taps.emplace_back(tap, offset / axis.stride);
    }
  }
  return residues;
}

void InputGradient(const Convolution& conv, const float* dy, const float* kernels, float* dx,
                   ffi::ThreadPool& pool) {
  const Axis &rows = conv.rows, &columns = conv.columns;
  const std::vector<Residue> row_residues = Residues(rows), column_residues = Residues(columns);
  // How much zero has to surround dy for every output that an input asks for to exist.
  auto bounds = [](const std::vector<Residue>& residues, const Axis& axis) {
    int64_t low = 0, high = axis.out;
    for (const Residue& residue : residues) {
      for (const auto& [tap, start] : residue.taps) {
        low = std::min(low, start);
        high = std::max(high, start + residue.length);
      }
    }
    return std::make_pair(-low, high - low);
  };
  const auto [top, height] = bounds(row_residues, rows);
  const auto [left, width] = bounds(column_residues, columns);
  ParallelFor(
      pool, conv.batch * conv.groups(),
      [&, top = top, height = height, left = left, width = width](int64_t task) {
        const int64_t example = task / conv.groups(), first = task % conv.groups() * kGroup;
        const int64_t count = std::min(kGroup, conv.channels - first);
        Images images(height, width, count);
        images.Pack(dy + example * conv.out_pixels() * conv.channels + first, rows.out, columns.out,
                    conv.channels, top, left);
        const float* kernel =
            kernels + (conv.kernels == 1 ? 0 : example) * conv.taps() * conv.channels + first;
        float* to = dx + example * conv.in_pixels() * conv.channels + first;
        Taps taps;
        taps.reserve(conv.taps());
        for (int64_t channel = 0; channel < count; channel += kLanes) {
          for (int64_t p = 0; p < rows.stride; ++p) {
            for (int64_t q = 0; q < columns.stride; ++q) {
              taps.clear();
              for (const auto& [i, row] : row_residues[p].taps) {
                for (const auto& [j, column] : column_residues[q].taps) {
                  taps.push_back(
                      {LoadSome(kernel + (i * columns.taps + j) * conv.channels + channel,
                                count - channel),
                       images.Offset(row + top, column + left)});
                }
              }
              for (int64_t t = 0; t < row_residues[p].length; ++t) {
                SumRow<1>(taps, images.At(channel, t, 0), column_residues[q].length, 1,
                          to + ((t * rows.stride + p) * columns.in + q) * conv.channels + channel,
                          columns.stride * conv.channels, count - channel);
              }
            }
          }
        }
      });
}

// Two images of the same pixels' neighbourhoods: from one tap to the next, one output to the next,
// one row of outputs to the next.
struct Steps {
  int64_t tap, column, row;
};

// Adds, for kCount neighbouring taps of one kernel row, the products over all outputs.
template <int kCount, int kStride>
void AddProducts(const float* x, Steps steps, const float* dy, int64_t rows, int64_t columns,
                 Lanes* sums) {
  // As in Sum. A known stride here means a dilation of 1, too.
  const int64_t tap = kStride ? kLanes : steps.tap;
  const int64_t column = kStride ? kStride * kLanes : steps.column;
  Lanes even[kCount], odd[kCount] = {};
#pragma GCC unroll 8
  for (int j = 0; j < kCount; ++j) even[j] = sums[j];
  for (int64_t row = 0; row < rows; ++row) {
    // Two sets of sums: one alone would wait for the result of its last addition.
    int64_t t = 0;
    for (; t + 1 < columns; t += 2) {
      const Lanes first = Load(dy + t * kLanes), second = Load(dy + (t + 1) * kLanes);
#pragma GCC unroll 8
      for (int j = 0; j < kCount; ++j) {
        even[j] += Load(x + t * column + j * tap) * first;
        odd[j] += Load(x + (t + 1) * column + j * tap) * second;
      }
    }
    if (t < columns) {
      const Lanes last = Load(dy + t * kLanes);
#pragma GCC unroll 8
      for (int j = 0; j < kCount; ++j) even[j] += Load(x + t * column + j * tap) * last;
    }
    x += steps.row;
    dy += columns * kLanes;
  }
#pragma GCC unroll 8
  for (int j = 0; j < kCount; ++j) sums[j] = even[j] + odd[j];
}

template <int kStride>
void AddSome(int64_t taps, const float* x, Steps steps, const float* dy, int64_t rows,
             int64_t columns, Lanes* sums) {
  using Function = void (*)(const float*, Steps, const float*, int64_t, int64_t, Lanes*);
  static constexpr Function kAdd[] = {nullptr,
                                      AddProducts<1, kStride>,
                                      AddProducts<2, kStride>,
                                      AddProducts<3, kStride>,
                                      AddProducts<4, kStride>,
                                      AddProducts<5, kStride>,
                                      AddProducts<6, kStride>,
                                      AddProducts<7, kStride>};
  kAdd[taps](x, steps, dy, rows, columns, sums);
}

void AddKernelGradient(const Convolution& conv, const Images& images, const Images& slopes,
                       int64_t channel, Lanes* sums) {
  constexpr int64_t kMost = 7;
  const Axis &rows = conv.rows, &columns = conv.columns;
  const Steps steps = {images.Offset(0, columns.dilation), images.Offset(0, columns.stride),
                       images.Offset(rows.stride, 0)};
  const auto add = columns.dilation > 1  ? AddSome<0>
                   : columns.stride == 1 ? AddSome<1>
                   : columns.stride == 2 ? AddSome<2>
                                         : AddSome<0>;
  for (int64_t i = 0; i < rows.taps; ++i) {
    for (int64_t j = 0; j < columns.taps; j += kMost) {
      add(std::min(kMost, columns.taps - j),
          images.At(channel, i * rows.dilation, j * columns.dilation), steps,
          slopes.At(channel, 0, 0), rows.out, columns.out, sums + i * columns.taps + j);
    }
  }
}

void KernelGradient(const Convolution& conv, const float* x, const float* dy, float* dk,
                    ffi::ThreadPool& pool) {
  const Axis &rows = conv.rows, &columns = conv.columns;
  // Where all examples share one kernel, one task adds them up.
  const int64_t together = conv.kernels == 1 ? conv.batch : 1;
  ParallelFor(pool, conv.kernels * conv.groups(), [&](int64_t task) {
    const int64_t begin = task / conv.groups(), first = task % conv.groups() * kGroup;
    const int64_t count = std::min(kGroup, conv.channels - first);
    Images images(Padded(rows), Padded(columns), count), slopes(rows.out, columns.out, count);
    std::vector<Lanes> sums(kGroup / kLanes * conv.taps(), Lanes{});
    for (int64_t example = begin; example < begin + together; ++example) {
      images.Pack(x + example * conv.in_pixels() * conv.channels + first, rows.in, columns.in,
                  conv.channels, rows.low, columns.low);
      slopes.Pack(dy + example * conv.out_pixels() * conv.channels + first, rows.out, columns.out,
                  conv.channels, 0, 0);
      for (int64_t channel = 0; channel < count; channel += kLanes) {
        AddKernelGradient(conv, images, slopes, channel, &sums[channel / kLanes * conv.taps()]);
      }
    }
    float* to = dk + begin * conv.taps() * conv.channels + first;
    for (int64_t channel = 0; channel < count; channel += kLanes) {
      for (int64_t t = 0; t < conv.taps(); ++t) {
        StoreSome(to + t * conv.channels + channel, sums[channel / kLanes * conv.taps() + t],
                  count - channel);
      }
    }
  });
}

Convolution Make(const Buffer::Dimensions& in, const Buffer::Dimensions& out,
                 const Buffer::Dimensions& kernels, Integers strides, Integers dilation,
                 Integers low) {
  Convolution conv;
  conv.rows = {in[1], out[1], kernels[1], strides[0], dilation[0], low[0]};
  conv.columns = {in[2], out[2], kernels[2], strides[1], dilation[1], low[1]};
  conv.batch = in[0];
  conv.channels = in[3];
  conv.kernels = kernels[0];
  return conv;
}

ffi::Error ForwardCall(ffi::ThreadPool pool, Integers strides, Integers dilation, Integers low,
                       Buffer x, Buffer kernels, Result y) {
  const Convolution conv =
      Make(x.dimensions(), y->dimensions(), kernels.dimensions(), strides, dilation, low);
  Forward(conv, x.typed_data(), kernels.typed_data(), y->typed_data(), pool);
  return ffi::Error::Success();
}

ffi::Error InputGradientCall(ffi::ThreadPool pool, Integers strides, Integers dilation,
                             Integers low, Buffer dy, Buffer kernels, Result dx) {
  const Convolution conv =
      Make(dx->dimensions(), dy.dimensions(), kernels.dimensions(), strides, dilation, low);
  InputGradient(conv, dy.typed_data(), kernels.typed_data(), dx->typed_data(), pool);
  return ffi::Error::Success();
}

ffi::Error KernelGradientCall(ffi::ThreadPool pool, Integers strides, Integers dilation,
                              Integers low, Buffer x, Buffer dy, Result dk) {
  const Convolution conv =
      Make(x.dimensions(), dy.dimensions(), dk->dimensions(), strides, dilation, low);
  KernelGradient(conv, x.typed_data(), dy.typed_data(), dk->typed_data(), pool);
  return ffi::Error::Success();
}

auto Binding() { return BindConvolution().Arg<Buffer>().Arg<Buffer>().Ret<Buffer>(); }

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(DepthwiseForward, ForwardCall, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(DepthwiseInputGradient, InputGradientCall, Binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(DepthwiseKernelGradient, KernelGradientCall, Binding());

}  // namespace condconv
