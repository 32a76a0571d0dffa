// A convolution along each of its axes, and the attributes that tell it.

#ifndef CONDCONV_CONVOLUTION_H_
#define CONDCONV_CONVOLUTION_H_

#include <cstdint>

#include "xla/ffi/api/ffi.h"

namespace condconv {

// A convolution along one axis.
struct Axis {
  int64_t in, out, taps, stride, dilation, low;
};

// Arguments and results are float32.
using Buffer = xla::ffi::Buffer<xla::ffi::F32>;
using Result = xla::ffi::Result<Buffer>;

// An attribute or a shape.
using Integers = xla::ffi::Span<const int64_t>;

// A binding with the attributes of a convolution, each of (rows, columns).
inline auto BindConvolution() {
  return xla::ffi::Ffi::Bind()
      .Ctx<xla::ffi::ThreadPool>()
      .Attr<Integers>("strides")
      .Attr<Integers>("dilation")
      .Attr<Integers>("low");
}

inline int64_t Ceil(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace condconv

#endif  // CONDCONV_CONVOLUTION_H_
