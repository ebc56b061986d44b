#include "kernels/cpu/winograd.h"

#include <cstring>

#include "kernels/cpu/gemm.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/scratch.h"

namespace trireme::cpu {

namespace {

constexpr int kTile = 4;                    // pixels of a tile's side
constexpr int kPlaces = kTile * kTile;      // of a transformed tile
constexpr int kStep = 2;                    // outputs of a tile's side
constexpr std::int64_t kTilesAtOnce = 128;  // of one block of matrix products
constexpr std::int64_t kTilesOfWeights = 1024;

/// Eight channels next to each other.
using Lanes = float __attribute__((vector_size(32)));
constexpr std::int64_t kLanes = 8;

Lanes load(const float* from) {
  Lanes v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
void store(float* to, Lanes v) { std::memcpy(to, &v, sizeof v); }

// The transforms of one axis, from kIn values to kOut; V is float or Lanes.
struct OfInput {
  static constexpr int kIn = 4, kOut = 4;
  template <class V>
  static void run(const V (&x)[4], V (&t)[4]) {
    t[0] = x[0] - x[2], t[1] = x[1] + x[2], t[2] = x[2] - x[1], t[3] = x[1] - x[3];
  }
};
struct OfWeight {
  static constexpr int kIn = 3, kOut = 4;
  template <class V>
  static void run(const V (&w)[3], V (&t)[4]) {
    const V outer = w[0] + w[2];
    t[0] = w[0], t[1] = (outer + w[1]) * 0.5f, t[2] = (outer - w[1]) * 0.5f, t[3] = w[2];
  }
};
struct ToOutput {
  static constexpr int kIn = 4, kOut = 2;
  template <class V>
  static void run(const V (&t)[4], V (&y)[2]) {
    y[0] = t[0] + t[1] + t[2], y[1] = t[1] - t[2] - t[3];
  }
};
// Of the gradients of weights: F(3x3,2x2) over the same tiles of the input.
struct OfGradient {
  static constexpr int kIn = 2, kOut = 4;
  template <class V>
  static void run(const V (&g)[2], V (&t)[4]) {
    t[0] = g[0], t[1] = (g[0] + g[1]) * 0.5f, t[2] = (g[0] - g[1]) * 0.5f, t[3] = g[1];
  }
};
struct ToWeight {
  static constexpr int kIn = 4, kOut = 3;
  template <class V>
  static void run(const V (&t)[4], V (&w)[3]) {
    w[0] = t[0] + t[1] + t[2], w[1] = t[1] - t[2], w[2] = t[1] + t[2] - t[3];
  }
};

template <class Axis, class V>
void transform(const V (&in)[Axis::kIn][Axis::kIn], V (&out)[Axis::kOut][Axis::kOut]) {
  V half[Axis::kIn][Axis::kOut];
  for (int i = 0; i < Axis::kIn; ++i) Axis::run(in[i], half[i]);
  for (int j = 0; j < Axis::kOut; ++j) {
    V column[Axis::kIn], done[Axis::kOut];
    for (int i = 0; i < Axis::kIn; ++i) column[i] = half[i][j];
    Axis::run(column, done);
    for (int i = 0; i < Axis::kOut; ++i) out[i][j] = done[i];
  }
}

/// Channels-last images cut into tiles: tile (a, b) begins at pixel (2a - padding, 2b - padding).
struct Tiles {
  std::int64_t images, height, width, channels, down, across, padding;
  std::int64_t count() const { return images * down * across; }

  struct Place {
    std::int64_t image, y, x;
  };
  Place place(std::int64_t tile) const {
    return {tile / (down * across), tile / across % down * kStep - padding, tile % across * kStep - padding};
  }
  bool holds(std::int64_t y, std::int64_t x) const { return y >= 0 && y < height && x >= 0 && x < width; }
  std::int64_t offset(std::int64_t image, std::int64_t y, std::int64_t x) const {
    return ((image * height + y) * width + x) * channels;
  }
};

/// Transforms tiles [begin, end) of `from` to to[place][tile - begin][channel], whose places are `apart`
/// elements apart. What lies outside of the images is 0.
template <class Axis>
void take_tiles(const Tiles& t, const float* from, std::int64_t begin, std::int64_t end, float* to,
                std::int64_t apart) {
  for (std::int64_t tile = begin; tile < end; ++tile, to += t.channels) {
    const auto [image, top, left] = t.place(tile);
    const float* pixels[Axis::kIn][Axis::kIn];
    for (int i = 0; i < Axis::kIn; ++i)
      for (int j = 0; j < Axis::kIn; ++j)
        pixels[i][j] = t.holds(top + i, left + j) ? from + t.offset(image, top + i, left + j) : nullptr;
    for (std::int64_t c = 0; c < t.channels; c += kLanes) {
      Lanes in[Axis::kIn][Axis::kIn], out[kTile][kTile];
      for (int i = 0; i < Axis::kIn; ++i)
        for (int j = 0; j < Axis::kIn; ++j) in[i][j] = pixels[i][j] ? load(pixels[i][j] + c) : Lanes{};
      transform<Axis>(in, out);
      for (int p = 0; p < kPlaces; ++p) store(to + p * apart + c, out[p / kTile][p % kTile]);
    }
  }
}

/// The way back: outputs of products from[place][tile - begin][channel], plus `bias` unless it is null.
void put_tiles(const Tiles& t, float* to, std::int64_t begin, std::int64_t end, const float* from,
               std::int64_t apart, const float* bias) {
  for (std::int64_t tile = begin; tile < end; ++tile, from += t.channels) {
    const auto [image, top, left] = t.place(tile);
    for (std::int64_t c = 0; c < t.channels; c += kLanes) {
      Lanes in[kTile][kTile], out[kStep][kStep];
      for (int p = 0; p < kPlaces; ++p) in[p / kTile][p % kTile] = load(from + p * apart + c);
      transform<ToOutput>(in, out);
      for (int i = 0; i < kStep; ++i)
        for (int j = 0; j < kStep; ++j)
          if (t.holds(top + i, left + j))
            store(to + t.offset(image, top + i, left + j) + c, bias ? out[i][j] + load(bias + c) : out[i][j]);
    }
  }
}

/// w (O,C,3,3) to [place][o][c]. Turned around, as the gradient of x needs w, axes of places run backwards.
void take_weights(const float* w, std::int64_t o, std::int64_t c, bool turned, float* to) {
  for_pieces(o, 8, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin * c; i < end * c; ++i) {
      float in[3][3], out[kTile][kTile];
      for (int k = 0; k < 9; ++k) in[k / 3][k % 3] = w[i * 9 + (turned ? 8 - k : k)];
      transform<OfWeight>(in, out);
      for (int p = 0; p < kPlaces; ++p) to[p * o * c + i] = out[p / kTile][p % kTile];
    }
  });
}

Tiles inputs(std::int64_t images, std::int64_t h, std::int64_t w, std::int64_t channels, const Tiles& of) {
  return {images, h, w, channels, of.down, of.across, of.padding};
}

/// Tiles of outputs have no padding.
Tiles outputs(std::int64_t images, std::int64_t h, std::int64_t w, std::int64_t channels) {
  return {images, h, w, channels, (h + kStep - 1) / kStep, (w + kStep - 1) / kStep, 0};
}

Scratch floats(std::int64_t count) { return Scratch(static_cast<std::size_t>(count) * sizeof(float)); }
float* begin_of(const Scratch& scratch) { return static_cast<float*>(scratch.data()); }

/// Filters `from` to `to` by weights [place][to channel][from channel], or the transpose of each.
void filter(const Tiles& from, const Tiles& to, const float* in, float* out, const float* weights,
            bool weights_turned, const float* bias) {
  const std::int64_t c = from.channels, o = to.channels;
  for_pieces(to.count(), kTilesAtOnce, [&](std::int64_t begin, std::int64_t end) {
    const OneThread alone;
    const std::int64_t tiles = end - begin;
    const Scratch taken = floats(kPlaces * tiles * c), made = floats(kPlaces * tiles * o);
    take_tiles<OfInput>(from, in, begin, end, begin_of(taken), tiles * c);
    for (int p = 0; p < kPlaces; ++p)
      gemm(static_cast<int>(tiles), static_cast<int>(o), static_cast<int>(c),
           {begin_of(taken) + p * tiles * c, static_cast<int>(c)},
           {weights + p * o * c, static_cast<int>(weights_turned ? o : c), !weights_turned}, 0.0f,
           {begin_of(made) + p * tiles * o, static_cast<int>(o)});
    put_tiles(to, out, begin, end, begin_of(made), tiles * o, bias);
  });
}

}  // namespace

bool suits_winograd(const Conv& c) {
  const Window& k = c.window;
  const bool is_3x3 = k.kernel_h == 3 && k.kernel_w == 3 && k.stride_h == 1 && k.stride_w == 1 &&
                      k.dilation_h == 1 && k.dilation_w == 1 && c.groups == 1;
  const bool fits = k.padding_h == k.padding_w && k.padding_h <= 2 && c.oh == c.h + 2 * k.padding_h - 2 &&
                    c.ow == c.w + 2 * k.padding_w - 2;
  // Few channels leave too little to multiply; small images waste much of their tiles.
  return is_3x3 && fits && c.c >= 32 && c.o >= 32 && c.c % kLanes == 0 && c.o % kLanes == 0 && c.oh >= 4 &&
         c.ow >= 4;
}

void winograd_forward(const Conv& c, const View& y, const View& x, const View& w, const View* bias) {
  const Tiles to = outputs(c.n, c.oh, c.ow, c.o);
  Tiles from = inputs(c.n, c.h, c.w, c.c, to);
  from.padding = c.window.padding_h;
  const Scratch weights = floats(kPlaces * c.o * c.c);
  take_weights(w.as<float>(), c.o, c.c, false, begin_of(weights));
  filter(from, to, x.as<float>(), y.as<float>(), begin_of(weights), false,
         bias ? bias->as<float>() : nullptr);
}

void winograd_backward_input(const Conv& c, const View& dx, const View& dy, const View& w) {
  const Tiles to = outputs(c.n, c.h, c.w, c.c);
  Tiles from = inputs(c.n, c.oh, c.ow, c.o, to);
  from.padding = 2 - c.window.padding_h;
  const Scratch weights = floats(kPlaces * c.o * c.c);
  take_weights(w.as<float>(), c.o, c.c, true, begin_of(weights));
  filter(from, to, dy.as<float>(), dx.as<float>(), begin_of(weights), true, nullptr);
}

void winograd_backward_weight(const Conv& c, const View& dw, const View& x, const View& dy) {
  const Tiles gradients = outputs(c.n, c.oh, c.ow, c.o);
  Tiles from = inputs(c.n, c.h, c.w, c.c, gradients);
  from.padding = c.window.padding_h;
  const std::int64_t all = gradients.count(), at_once = std::min(all, kTilesOfWeights);
  const Scratch taken = floats(kPlaces * at_once * c.c), with = floats(kPlaces * at_once * c.o),
                sums = floats(kPlaces * c.o * c.c);
  for (std::int64_t begin = 0; begin < all; begin += at_once) {
    const std::int64_t tiles = std::min(at_once, all - begin);
    for_pieces(tiles, 32, [&](std::int64_t first, std::int64_t last) {
      take_tiles<OfInput>(from, x.as<float>(), begin + first, begin + last, begin_of(taken) + first * c.c,
                          tiles * c.c);
      take_tiles<OfGradient>(gradients, dy.as<float>(), begin + first, begin + last,
                             begin_of(with) + first * c.o, tiles * c.o);
    });
    // Each place is one thread's, so that the order of its sum is always the same.
    for_pieces(kPlaces, 1, [&](std::int64_t p, std::int64_t) {
      const OneThread alone;
      gemm(static_cast<int>(c.o), static_cast<int>(c.c), static_cast<int>(tiles),
           {begin_of(with) + p * tiles * c.o, static_cast<int>(c.o), true},
           {begin_of(taken) + p * tiles * c.c, static_cast<int>(c.c)}, begin == 0 ? 0.0f : 1.0f,
           {begin_of(sums) + p * c.o * c.c, static_cast<int>(c.c)});
    });
  }
  for_pieces(c.o, 8, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first * c.c; i < last * c.c; ++i) {
      float in[kTile][kTile], out[3][3];
      for (int p = 0; p < kPlaces; ++p) in[p / kTile][p % kTile] = begin_of(sums)[p * c.o * c.c + i];
      transform<ToWeight>(in, out);
      std::memcpy(dw.as<float>() + i * 9, out, sizeof out);
    }
  });
}

}  // namespace trireme::cpu
