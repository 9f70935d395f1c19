// Rows to lanes and back, in squares of one vector's side.
#pragma once
#include <type_traits>
#include <utility>

#include "vec.h"

// The lanes named, of two vectors end to end.
template <class T, long... lane>
INLINE Vec<T> pick(Vec<T> a, Vec<T> b) {
#ifdef __clang__
  return __builtin_shufflevector(a, b, lane...);
#else  // which GCC has from 12 only
  typedef std::conditional_t<sizeof(T) == 8, int64_t, int32_t> Number;
  typedef Number Index __attribute__((vector_size(BYTES)));
  return __builtin_shuffle(a, b, Index{lane...});
#endif
}

// One exchange step: swaps the off-diagonal blocks of side S in each pair of rows S apart.
template <class T, int S, long... lane>
INLINE void exchange(Vec<T>& a, Vec<T>& b, std::integer_sequence<long, lane...>) {
  const Vec<T> low = pick<T, (lane & S ? W<T> + lane - S : lane)...>(a, b);
  const Vec<T> high = pick<T, (lane & S ? W<T> + lane : lane + S)...>(a, b);
  a = low;
  b = high;
}

template <class T, int S>
INLINE void exchange_all(Vec<T>* row) {
  if constexpr (S > 0) {
#pragma GCC unroll 16
    for (int r = 0; r < W<T>; ++r)
      if (!(r & S)) exchange<T, S>(row[r], row[r + S], std::make_integer_sequence<long, W<T>>{});
    exchange_all<T, S / 2>(row);
  }
}

// to[col * to_row + row] = factor * from[row * from_row + col] for rows x cols; rows up to up_rows read as 0.
// What `to` has of each column beyond up_rows is left alone.
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
