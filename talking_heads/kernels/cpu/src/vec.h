// SIMD vectors and the size of the register blocks for the target instruction set. The vector extension of
// GCC and Clang lets one source serve AVX-512, AVX2, SSE2 and NEON.
#pragma once
#include <cstdint>
#include <cstring>

// Register blocks in vectors: TILE_ROWS x TILE_COLS for product, LANE_ROWS x LANE_COLS for lanewise. The
// accumulators and the operands in use must fit in the vector registers: with 32, 24 accumulators, 4 columns
// and the broadcasts.
#if defined(__AVX512F__)
#define SET "avx512"
constexpr int BYTES = 64, TILE_ROWS = 6, TILE_COLS = 4, LANE_ROWS = 4, LANE_COLS = 6;  // 32 registers
#elif defined(__AVX2__)
#define SET "avx2"
constexpr int BYTES = 32, TILE_ROWS = 6, TILE_COLS = 2, LANE_ROWS = 3, LANE_COLS = 4;  // 16 registers
#elif defined(__aarch64__)
#define SET "plain"
constexpr int BYTES = 16, TILE_ROWS = 6, TILE_COLS = 4, LANE_ROWS = 4, LANE_COLS = 6;  // 32 registers
#else
#define SET "plain"
constexpr int BYTES = 16, TILE_ROWS = 6, TILE_COLS = 2, LANE_ROWS = 3, LANE_COLS = 4;  // 16 registers
#endif

template <class T>
struct Lanes {
  static constexpr int count = BYTES / sizeof(T);
  typedef T type __attribute__((vector_size(BYTES)));
  typedef T loose __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));  // unaligned
};
template <class T>
using Vec = typename Lanes<T>::type;
template <class T>
constexpr int W = Lanes<T>::count;

// Words for the dropout hash: 32 bits per lane for every T.
template <class T>
struct WordLanes {
  typedef uint32_t type __attribute__((vector_size(W<T> * 4)));
  typedef int32_t sign __attribute__((vector_size(W<T> * 4)));
};

#define INLINE inline __attribute__((always_inline))

template <class T>
INLINE Vec<T> load(const T* x) {
  return *reinterpret_cast<const typename Lanes<T>::loose*>(x);
}
template <class T>
INLINE void store(T* to, Vec<T> x) {
  *reinterpret_cast<typename Lanes<T>::loose*>(to) = x;
}
template <class T>
INLINE Vec<T> all(T x) {
  return Vec<T>{} + x;
}
template <class T>
INLINE Vec<T> larger(Vec<T> a, Vec<T> b) {
  return a > b ? a : b;
}
template <class T>
INLINE T total(Vec<T> x) {
  T sum = 0;
  for (int lane = 0; lane < W<T>; ++lane) sum += x[lane];
  return sum;
}

// exp(x) for x <= 0 or NaN: 2^n times a polynomial in the remainder. Returns exactly 0 where the result would
// be subnormal. The error is below 2 ulp of exp(x) * max(1, |x|).
INLINE Vec<float> exp(Vec<float> x) {
  typedef int32_t Bits __attribute__((vector_size(BYTES)));
  const float magic = 12583039.0f;  // 1.5 * 2^23 + 127: rounds to an integer (not with -ffast-math)
  const Vec<float> shifted = x * 1.44269504088896341f + magic;
  const Vec<float> n = shifted - magic;
  const Vec<float> f = x * 1.44269504088896341f - n;  // in [-1/2, 1/2]
  Vec<float> p = all(1.535336171466786e-4f);
  p = p * f + 1.3398874477753263e-3f;
  p = p * f + 9.618437358958022e-3f;
  p = p * f + 5.5503324709246356e-2f;
  p = p * f + 2.4022647913610062e-1f;
  p = p * f + 6.931472028551928e-1f;
  p = p * f + 1.0f;
  return x < all(-87.0f) ? Vec<float>{} : p * (Vec<float>)((Bits)shifted << 23);  // keeps NaN
}
INLINE Vec<double> exp(Vec<double> x) {
  typedef int64_t Bits __attribute__((vector_size(BYTES)));
  const double magic = 6755399441055744.0;
  const Vec<double> least = all(-708.0);
  const Vec<double> y = x < least ? least : x;
  const Vec<double> shifted = y * 1.4426950408889634 + magic;
  const Vec<double> n = shifted - magic;
  Vec<double> r = y - n * 0.6931471803691238;
  r = r - n * 1.9082149292705877e-10;
  Vec<double> p = all(1.0 / 6227020800.0);
  const double inverse[] = {1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
                            1.0 / 720,       1.0 / 120,      1.0 / 24,      1.0 / 6,      0.5,         1.0,
                            1.0};
  for (double c : inverse) p = p * r + c;
  const Bits scale = (((Bits)shifted - (Bits)all(magic)) + 1023) << 52;
  return x < least ? Vec<double>{} : p * (Vec<double>)scale;
}
