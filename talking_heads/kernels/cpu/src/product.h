// The two products, built from micro-kernels whose accumulators are a register block.
//
//   product    out[row][col]  (+)= sum over k of  a(row, k) * b[k][col]       a: scalars, b: vectors
//   lanewise   out[p][q]      (+)= sum over k of  x(p, k) * y(q, k)           all operands are vectors
//
// In most uses the lanes of a vector are queries: scores, weights and outputs are stored as [.., queries].
// Keys and values are then broadcast scalars that need no packing, and no micro-kernel sums across lanes.
#pragma once
#include <type_traits>

#include "vec.h"

// A strided matrix: element (row, k) is at[row * row_step + k * step].
template <class T>
struct Numbers {
  const T* at;
  long row_step, step;
};

// Micro-kernel of product: a register block of ROWS rows by COLS vectors. SCALED multiplies b by `scale` in
// place as it is loaded.
template <class T, int ROWS, int COLS, bool ADD, bool SCALED>
INLINE void product_tile(Numbers<T> a, const T* b, long b_step, const T* const* scale, long scale_step, T* out,
                         long out_step, long depth) {
  Vec<T> sum[ROWS][COLS] = {};
  for (long k = 0; k < depth; ++k) {
    Vec<T> column[COLS];
#pragma GCC unroll 8
    for (int c = 0; c < COLS; ++c) {
      column[c] = load(b + k * b_step + c * W<T>);
      if (SCALED) {
        column[c] *= load(scale[c] + k * scale_step);
        store(const_cast<T*>(b) + k * b_step + c * W<T>, column[c]);  // the next row tiles read it scaled
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      const T number = a.at[r * a.row_step + k * a.step];
#pragma GCC unroll 8
      for (int c = 0; c < COLS; ++c) sum[r][c] += number * column[c];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
    for (int c = 0; c < COLS; ++c) {
      T* to = out + r * out_step + c * W<T>;
      store(to, ADD ? load(to) + sum[r][c] : sum[r][c]);
    }
}

// Factors that scale b in place: the vector at + k * step + c % period * W<T> multiplies the vector b[k][c].
template <class T>
struct Scale {
  const T* at;
  long step, period;
};

// Software prefetch of the next head's rows, [rows][count]: the hardware prefetcher does not predict the jump
// between heads. Each row tile of a product prefetches a share, because all requests at once would stall.
template <class T>
struct Ahead {
  const T* at;
  long row, rows, count;
  INLINE void ask(long from, long to, long whole) const {
    for (long r = from * rows / whole; r < to * rows / whole; ++r)
      for (long e = 0; e < count; e += 64 / (long)sizeof(T)) __builtin_prefetch(at + r * row + e, 0, 1);
  }
};

// One column panel of b, COLS vectors wide: full row tiles, then a remainder tile.
template <class T, int COLS, bool ADD, bool SCALED>
void product_columns(long rows, long depth, Numbers<T> a, const T* b, long b_step, Scale<T> scale, long c, T* out,
                     long out_step, const Ahead<T>& ahead) {
  const T* scales[COLS] = {};
  if (SCALED)
    for (int e = 0; e < COLS; ++e) scales[e] = scale.at + (c + e) % scale.period * W<T>;
  const auto tile = [&](auto constant, auto scaled, long row) __attribute__((always_inline)) {
    if (ahead.rows) ahead.ask(row, row + decltype(constant)::value, rows);
    product_tile<T, decltype(constant)::value, COLS, ADD, decltype(scaled)::value>(
        {a.at + row * a.row_step, a.row_step, a.step}, b, b_step, scales, scale.step, out + row * out_step, out_step,
        depth);
  };
  const auto last = [&](auto scaled, long row) __attribute__((always_inline)) {
    switch (rows - row) {
      case 5: tile(std::integral_constant<int, 5>{}, scaled, row); break;
      case 4: tile(std::integral_constant<int, 4>{}, scaled, row); break;
      case 3: tile(std::integral_constant<int, 3>{}, scaled, row); break;
      case 2: tile(std::integral_constant<int, 2>{}, scaled, row); break;
      case 1: tile(std::integral_constant<int, 1>{}, scaled, row); break;
    }
  };
  constexpr std::integral_constant<int, TILE_ROWS> full = {};
  long row = 0;
  if (SCALED) {  // the first row tile scales the panel for all
    if (rows < TILE_ROWS) return last(std::true_type{}, 0);
    tile(full, std::true_type{}, 0);
    row = TILE_ROWS;
  }
  for (; row + TILE_ROWS <= rows; row += TILE_ROWS) tile(full, std::false_type{}, row);
  last(std::false_type{}, row);
}

// out (+)= a b, one column panel after the other. `cols` counts vectors; `depth` is the length of the sum.
template <class T, bool ADD, bool SCALED = false>
void product(long rows, long cols, long depth, Numbers<T> a, const T* b, long b_step, T* out, long out_step,
             Ahead<T> ahead = {}, Scale<T> scale = {}) {
  const auto columns = [&](auto constant, long c) {
    product_columns<T, decltype(constant)::value, ADD, SCALED>(rows, depth, a, b + c * W<T>, b_step, scale, c,
                                                               out + c * W<T>, out_step, c == 0 ? ahead : Ahead<T>{});
  };
  long c = 0;
  for (; c + TILE_COLS <= cols; c += TILE_COLS) columns(std::integral_constant<int, TILE_COLS>{}, c);
  switch (cols - c) {
    case 3: columns(std::integral_constant<int, 3>{}, c); break;
    case 2: columns(std::integral_constant<int, 2>{}, c); break;
    case 1: columns(std::integral_constant<int, 1>{}, c); break;
  }
}

// Micro-kernel of lanewise: a register block of P x Q vectors. Element (p, k) of x and (q, k) of y is the
// vector that starts at the address of that element.
template <class T, int P, int Q, bool ADD>
INLINE void lanewise_tile(Numbers<T> x, Numbers<T> y, T* out, long out_p, long out_q, long depth) {
  Vec<T> sum[P][Q] = {};
  for (long k = 0; k < depth; ++k) {
    Vec<T> left[P];
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) left[p] = load(x.at + p * x.row_step + k * x.step);
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) {
      const Vec<T> right = load(y.at + q * y.row_step + k * y.step);
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) sum[p][q] += left[p] * right;
    }
  }
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) {
      T* to = out + p * out_p + q * out_q;
      store(to, ADD ? load(to) + sum[p][q] : sum[p][q]);
    }
}

// Q columns of out: full tiles of LANE_ROWS rows, then single rows.
template <class T, int Q, bool ADD>
void lanewise_rows(long ps, Numbers<T> x, Numbers<T> y, T* out, long out_p, long out_q, long depth) {
  long p = 0;
  for (; p + LANE_ROWS <= ps; p += LANE_ROWS)
    lanewise_tile<T, LANE_ROWS, Q, ADD>({x.at + p * x.row_step, x.row_step, x.step}, y, out + p * out_p, out_p,
                                        out_q, depth);
  for (; p < ps; ++p)
    lanewise_tile<T, 1, Q, ADD>({x.at + p * x.row_step, x.row_step, x.step}, y, out + p * out_p, out_p, out_q,
                                depth);
}

// out (+)= x y^T in each lane of one vector. The sum over k is split into stretches, so that the part of y in
// use stays in L1.
template <class T, bool ADD>
void lanewise(long ps, long qs, long depth, Numbers<T> x, Numbers<T> y, T* out, long out_p, long out_q) {
  constexpr long STRETCH = 64;
  for (long k = 0; k < depth; k += STRETCH) {
    const long count = depth - k < STRETCH ? depth - k : STRETCH;
    const Numbers<T> xs = {x.at + k * x.step, x.row_step, x.step};
    const auto columns = [&](auto constant, long q) {
      constexpr int Q = decltype(constant)::value;
      const Numbers<T> ys = {y.at + q * y.row_step + k * y.step, y.row_step, y.step};
      if (ADD || k > 0) lanewise_rows<T, Q, true>(ps, xs, ys, out + q * out_q, out_p, out_q, count);
      else lanewise_rows<T, Q, false>(ps, xs, ys, out + q * out_q, out_p, out_q, count);
    };
    long q = 0;
    for (; q + LANE_COLS <= qs; q += LANE_COLS) columns(std::integral_constant<int, LANE_COLS>{}, q);
    for (; q < qs; ++q) columns(std::integral_constant<int, 1>{}, q);
  }
}
