// Packing: transposes rows to lanes and back, in W x W squares that stay in registers.
#pragma once
#include <type_traits>
#include <utility>

#include "vec.h"

// The given lanes of the concatenation of a and b.
template <class T, long... lane>
INLINE Vec<T> pick(Vec<T> a, Vec<T> b) {
#ifdef __clang__
  return __builtin_shufflevector(a, b, lane...);
#else  // GCC has __builtin_shufflevector only from version 12
  typedef std::conditional_t<sizeof(T) == 8, int64_t, int32_t> Number;
  typedef Number Index __attribute__((vector_size(BYTES)));
  return __builtin_shuffle(a, b, Index{lane...});
#endif
}

// One butterfly step: in a pair of rows that are S apart, swaps the off-diagonal S x S blocks.
template <class T, int S, long... lane>
INLINE void exchange(Vec<T>& a, Vec<T>& b, std::integer_sequence<long, lane...>) {
  const Vec<T> low = pick<T, (lane & S ? W<T> + lane - S : lane)...>(a, b);
  const Vec<T> high = pick<T, (lane & S ? W<T> + lane : lane + S)...>(a, b);
  a = low;
  b = high;
}

// Transposes a W x W square in place with log2(W) butterfly steps; S starts at W / 2.
template <class T, int S>
INLINE void exchange_all(Vec<T>* row) {
  if constexpr (S > 0) {
#pragma GCC unroll 16
    for (int r = 0; r < W<T>; ++r)
      if (!(r & S)) exchange<T, S>(row[r], row[r + S], std::make_integer_sequence<long, W<T>>{});
    exchange_all<T, S / 2>(row);
  }
}

// to[col * to_row + row] (+)= factor * from[row * from_row + col] for a matrix of rows x cols. Rows from
// `rows` to up_rows count as zeros (padding). Elements of `to` past up_rows are not written.
template <class T, bool ADD = false>
void transpose(long rows, long cols, long up_rows, const T* from, long from_row, T* to, long to_row, T factor) {
  for (long r = 0; r < up_rows; r += W<T>)
    for (long c = 0; c < cols; c += W<T>) {
      const long rs = rows - r < W<T> ? (rows > r ? rows - r : 0) : W<T>, cs = cols - c < W<T> ? cols - c : W<T>;
      const long kept = up_rows - r < W<T> ? up_rows - r : W<T>;
      Vec<T> square[W<T>];
      for (int x = 0; x < W<T>; ++x) {
        square[x] = Vec<T>{};
        const T* line = from + (r + x) * from_row + c;
        if (x < rs && cs == W<T>)
          square[x] = load(line) * factor;
        else if (x < rs)
          for (long y = 0; y < cs; ++y) square[x][y] = line[y] * factor;
      }
      exchange_all<T, W<T> / 2>(square);
      for (long y = 0; y < cs; ++y) {
        T* line = to + (c + y) * to_row + r;
        if (kept == W<T>)
          store(line, ADD ? load(line) + square[y] : square[y]);
        else
          for (long x = 0; x < kept; ++x) line[x] = ADD ? line[x] + square[y][x] : square[y][x];
      }
    }
}
