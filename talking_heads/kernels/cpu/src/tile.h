// The steps from queries and keys to mixed weights on one tile: all heads, one block of queries (the lanes),
// one range of keys. A tile is stored as [head][key][query], with stride Plan::head between heads.
#pragma once
#include <cmath>
#include <utility>

#include "call.h"
#include "product.h"
#include "transpose.h"

// One block of queries and its packed inputs, in which the lanes are queries.
template <class T>
struct Block {
  const Call<T>& c;
  const Plan<T>& p;
  long b, n0, count;  // batch element, first query, number of queries (other lanes are 0)
  T *queries, *logits_by_query, *weights_by_query;  // [i][k][rows], [number][rows] twice
  uint32_t* dropout_keys;                           // [j][rows]
  T* hidden;                                        // scratch of the thread: packed mask, [key][rows]
  T* low;                                           // scratch of the thread: [2][rank][keys * rows]

  long lanes() const { return p.rows / W<T>; }
  long keys(long tile) const { return least(p.keys, c.m - tile * p.keys); }
  long first(long tile) const { return tile * p.keys; }
  bool is_last() const { return n0 + p.rows >= c.n; }  // no block sees more keys
};

// Calls f(first vector, number of vectors) over the vectors of a block, 4 at a time and then singly. The
// number is a compile-time constant, so that accumulators stay in registers.
template <class T, class F>
INLINE void over_lanes(long lanes, F f) {
  long l = 0;
  for (; l + 4 <= lanes; l += 4) f(l, std::integral_constant<int, 4>{});
  for (; l < lanes; ++l) f(l, std::integral_constant<int, 1>{});
}

// Whether an element of [rows][count] is not finite: 0 * x is 0 only for finite x.
template <class T>
bool not_finite(const T* from, long row, long rows, long count) {
  Vec<T> zero = {};
  T tail = 0;
  for (long r = 0; r < rows; ++r, from += row) {
    long at = 0;
    for (; at + W<T> <= count; at += W<T>) zero += load(from + at) * T(0);
    for (; at < count; ++at) tail += from[at] * T(0);
  }
  return !(total<T>(zero) + tail == 0);
}

// Whether a key or value of the tile is not finite.
template <class T>
bool not_finite(const Block<T>& x, long tile) {
  const Call<T>& c = x.c;
  bool strange = false;
  for (long i = 0; i < c.i; ++i)
    strange |= not_finite(c.key.rows(x.b, i) + x.first(tile) * c.key.row, c.key.row, x.keys(tile), c.k);
  for (long j = 0; j < c.j; ++j)
    strange |= not_finite(c.value.rows(x.b, j) + x.first(tile) * c.value.row, c.value.row, x.keys(tile), c.v);
  return strange;
}

// scores[i][key][query] = query . key; queries were scaled when packed. Query and key rows that are not
// finite hold zeros here (binding.py); bad_query and bad_key mark them, and their scores become NaN.
template <class T>
void score(const Block<T>& x, long tile, T* scores) {
  const Call<T>& c = x.c;
  const long first = x.first(tile), keys = x.keys(tile), rows = x.p.rows;
  for (long i = 0; i < c.i; ++i) {
    T* to = scores + i * x.p.head;
    const T* key = c.key.rows(x.b, i) + first * c.key.row;
    product<T, false>(keys, x.lanes(), c.k, {key, c.key.row, 1}, x.queries + i * c.k * rows, rows, to, rows,
                      {key + c.key.head, c.key.row, i + 1 < c.i ? keys : 0, c.k});
    if (!c.bad_key) continue;
    const char* bad = c.bad_key + (x.b * c.i + i) * c.m + first;
    const char* bad_row = c.bad_query + (x.b * c.i + i) * c.n + x.n0;
    for (long m = 0; m < keys; ++m)
      for (long r = 0; r < x.count; ++r)
        if (bad[m] || bad_row[r]) to[m * rows + r] = NAN;
  }
}

// The low-rank factors of a map at one vector of queries or one memory position: down(r, e), up(r, o) and
// diagonal(o), with `step` between consecutive numbers. The transposed map swaps down and up.
template <class T>
struct Factors {
  Numbers<T> down, up;  // row: r, step: e or o
  const T* diagonal;
  long step;
  Factors(const T* at, long rank, long heads, long step, bool transposed)
      : down{at, heads * step, step}, up{at + rank * heads * step, heads * step, step},
        diagonal(at + 2 * rank * heads * step), step(step) {
    if (transposed) std::swap(down, up);
  }
};

template <class T>
INLINE Numbers<T> turned(Numbers<T> x) {
  return {x.at, x.step, x.row_step};
}

// low[r][key][vector at l] = sum over e of down(r, e) * in[e][key][vector at l]
template <class T>
void project(const Block<T>& x, long keys, Numbers<T> down, long rank, long heads, const T* in, long l, T* low) {
  const long rows = x.p.rows;
  lanewise<T, false>(rank, keys, heads, {down.at + l, down.row_step, down.step}, {in + l, rows, x.p.head}, low + l,
                     x.p.keys * rows, rows);
}

// out (+)= in mixed by the part of a map that depends on the query (packed: one map per lane).
template <class T, bool ADD>
void mix_by_query(const Block<T>& x, long tile, const T* by_query, const Map<T>& map, bool transposed, const T* in,
                  T* out) {
  const long keys = x.keys(tile), rows = x.p.rows, head = x.p.head, rank = map.query_rank;
  const long ins = transposed ? map.outs : map.ins, outs = transposed ? map.ins : map.outs;
  const long out_step = transposed ? map.outs : 1, in_step = transposed ? 1 : map.outs;
  for (long l = 0; l < rows; l += W<T>) {
    if (!rank) {
      lanewise<T, ADD>(outs, keys, ins, {by_query + l, out_step * rows, in_step * rows}, {in + l, rows, head}, out + l,
                       head, rows);
      continue;
    }
    const Factors<T> f(by_query, rank, ins, rows, transposed);
    project(x, keys, f.down, rank, ins, in, l, x.low);
    const Numbers<T> up = turned(f.up);
    lanewise<T, ADD>(outs, keys, rank, {up.at + l, up.row_step, up.step}, {x.low + l, rows, x.p.keys * rows}, out + l,
                     head, rows);
    for (long o = 0; o < outs; ++o) {
      const Vec<T> factor = load(f.diagonal + o * rows + l);
      for (long m = 0; m < keys; ++m) {
        T* to = out + o * head + m * rows + l;
        store(to, load(to) + factor * load(in + o * head + m * rows + l));
      }
    }
  }
}

// out (+)= in mixed by the part of a map that depends on the memory position.
template <class T, bool ADD>
void mix_by_memory(const Block<T>& x, long tile, const Map<T>& map, bool transposed, const T* in, T* out) {
  const long rows = x.p.rows, head = x.p.head, rank = map.memory_rank;
  const long ins = transposed ? map.outs : map.ins, outs = transposed ? map.ins : map.outs;
  const long out_step = transposed ? map.outs : 1, in_step = transposed ? 1 : map.outs;
  for (long m = 0; m < x.keys(tile); ++m) {
    const T* own = map.by_memory + (x.b * x.c.m + x.first(tile) + m) * map.memory_numbers();
    const T* from = in + m * rows;
    T* to = out + m * rows;
    if (!rank) {
      product<T, ADD>(outs, x.lanes(), ins, {own, out_step, in_step}, from, head, to, head);
      continue;
    }
    const Factors<T> f(own, rank, ins, 1, transposed);
    product<T, false>(rank, x.lanes(), ins, f.down, from, head, x.low, rows);
    product<T, ADD>(outs, x.lanes(), rank, turned(f.up), x.low, rows, to, head);
    for (long o = 0; o < outs; ++o)
      for (long l = 0; l < rows; l += W<T>)
        store(to + o * head + l, load(to + o * head + l) + f.diagonal[o] * load(from + o * head + l));
  }
}

// out[o][key][query] = sum over e of map(e, o) * in[e][key][query]; transposed: map(o, e). The map is the sum
// of its parts; by_query is packed. `scale` [e][rows] multiplies `in` in place; for static maps only.
template <class T>
void mix(const Block<T>& x, long tile, const Map<T>& map, const T* by_query, bool transposed, const T* in, T* out,
         const T* scale = nullptr) {
  const long keys = x.keys(tile), rows = x.p.rows, head = x.p.head;
  if (map.all) {
    const long each_in = map.ins / map.groups, each_out = map.outs / map.groups;
    const long ins = transposed ? each_out : each_in, outs = transposed ? each_in : each_out;
    for (long g = 0; g < map.groups; ++g) {
      const Numbers<T> numbers = {map.all + g * ins * outs, transposed ? each_out : 1, transposed ? 1 : each_out};
      const T* from = in + g * ins * head;
      T* to = out + g * outs * head;
      if (scale)
        product<T, false, true>(outs, keys * x.lanes(), ins, numbers, from, head, to, head, {},
                                {scale + g * ins * rows, rows, x.lanes()});
      else product<T, false>(outs, keys * x.lanes(), ins, numbers, from, head, to, head);
    }
  } else {  // the identity: same number of heads in and out
    for (long o = 0; o < map.outs; ++o) std::memcpy(out + o * head, in + o * head, keys * rows * sizeof(T));
  }
  if (map.by_query) mix_by_query<T, true>(x, tile, by_query, map, transposed, in, out);
  if (map.by_memory) mix_by_memory<T, true>(x, tile, map, transposed, in, out);
}

// Packs into x.hidden what is added to the logits of softmax head h: the mask, and -inf above the diagonal if
// causal.
template <class T>
void fetch_hidden(const Block<T>& x, long tile, long h) {
  const Tensor<T>& mask = x.c.mask;
  const long first = x.first(tile), keys = x.keys(tile), rows = x.p.rows;
  const long start = x.b * mask.batch + h * mask.head + x.n0 * mask.row + first * mask.column;
  for (long m = 0; m < keys; ++m) {
    T* to = x.hidden + m * rows;
    for (long r = 0; r < rows; ++r) to[r] = 0;
  }
  if (mask.form)
    for (long r = 0; r < x.count; ++r)
      for (long m = 0; m < keys; ++m) {
        const long at = start + r * mask.row + m * mask.column;
        x.hidden[m * rows + r] =
            mask.form == 1 ? (reinterpret_cast<const char*>(mask.at)[at] ? T(0) : -T(INFINITY)) : mask.at[at];
      }
  if (x.c.is_causal)
    for (long m = 0; m < keys; ++m)
      for (long r = 0; r < least(rows, first + m - x.n0); ++r) x.hidden[m * rows + r] = -T(INFINITY);
}

// Applies mask and causality to logits [h][key][query]. -inf is set, not added: a hidden logit may be NaN.
template <class T>
void hide(const Block<T>& x, long tile, T* logits) {
  const Call<T>& c = x.c;
  const bool on_diagonal = c.is_causal && x.first(tile) + x.keys(tile) > x.n0 + 1;
  if (!c.mask.form && !on_diagonal) return;
  for (long h = 0; h < c.h; ++h) {
    if (h == 0 || c.mask.head) fetch_hidden(x, tile, h);
    T* to = logits + h * x.p.head;
    const Vec<T> never = all(-T(INFINITY));
    for (long at = 0; at < x.keys(tile) * x.p.rows; at += W<T>) {
      const Vec<T> extra = load(x.hidden + at);
      store(to + at, extra == never ? never : load(to + at) + extra);
    }
  }
}

// Dropout factors of one vector: 1 / (1 - p) where kept, 0 where dropped. The hash is that of random.py.
template <class T>
INLINE Vec<T> kept(const Call<T>& c, const uint32_t* row_keys, long m) {
  typedef typename WordLanes<T>::type Word;
  Word x;
  std::memcpy(&x, row_keys, sizeof(x));
  x += (uint32_t)m * 0x9E3779B9u;
  x ^= x >> 16;
  x *= 0x7FEB352Du;
  x ^= x >> 15;
  x *= 0x846CA68Bu;
  x ^= x >> 16;
  const auto keep = (typename WordLanes<T>::sign)(x >> 8) >= (int32_t)c.keep_below;
  return __builtin_convertvector(-keep, Vec<T>) * (T)c.keep_scale;
}

inline uint32_t hash(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7FEB352Du;
  x ^= x >> 15;
  x *= 0x846CA68Bu;
  return x ^ x >> 16;
}

// Multiplies numbers [j][key][query] by the dropout factors.
template <class T>
void drop(const Block<T>& x, long tile, T* numbers) {
  for (long j = 0; j < x.c.j; ++j)
    for (long m = 0; m < x.keys(tile); ++m)
      for (long l = 0; l < x.p.rows; l += W<T>) {
        T* to = numbers + j * x.p.head + m * x.p.rows + l;
        store(to, load(to) * kept(x.c, x.dropout_keys + j * x.p.rows + l, x.first(tile) + m));
      }
}

// Multiplies weights [h][key][query] by factor [h][query].
template <class T>
void scale_by(const Block<T>& x, long tile, const T* factor, T* weights) {
  const long rows = x.p.rows;
  for (long h = 0; h < x.c.h; ++h)
    for (long m = 0; m < x.keys(tile); ++m)
      for (long l = 0; l < rows; l += W<T>) {
        T* to = weights + h * x.p.head + m * rows + l;
        store(to, load(to) * load(factor + h * rows + l));
      }
}

// The mixed weights, with bias and dropout, that multiply the values: from weights [h][key][query] times
// factor [h][query]. Returns `to`, or `weights` if the call has no mixing, bias or dropout.
template <class T>
T* mixed_weights(const Block<T>& x, long tile, T* weights, const T* factor, T* to) {
  const Call<T>& c = x.c;
  const bool is_static = c.weights.all && !c.weights.by_query && !c.weights.by_memory;
  if (!is_static && factor) scale_by(x, tile, factor, weights);
  if (c.weights.none() && !c.bias && !c.keep_below) return weights;
  if (c.weights.none())
    for (long j = 0; j < c.j; ++j)
      std::memcpy(to + j * x.p.head, weights + j * x.p.head, x.keys(tile) * x.p.rows * sizeof(T));
  else
    mix(x, tile, c.weights, x.weights_by_query, false, weights, to, is_static ? factor : nullptr);
  if (c.bias)
    for (long j = 0; j < c.j; ++j)
      for (long at = 0; at < x.keys(tile) * x.p.rows; at += W<T>) {
        T* number = to + j * x.p.head + at;
        store(number, load(number) + c.bias[j]);
      }
  if (c.keep_below) drop(x, tile, to);
  return to;
}

// Packs the block's rows of heads rank, rank + size, ... times factor, as [head][width][rows].
template <class T>
void fetch_lanes(const Block<T>& x, const Heads<T>& from, long heads, long width, T factor, T* to, long rank,
                 long size) {
  const long rows = x.p.rows;
  for (long h = rank; h < heads; h += size)
    transpose(x.count, width, rows, from.rows(x.b, h) + x.n0 * from.row, from.row, to + h * width * rows, rows, factor);
}

// Packs the block's queries and maps by query, and computes dropout keys, for heads rank, rank + size, ...
// Returns whether a query is not finite.
template <class T>
bool fetch(const Block<T>& x, long rank, long size) {
  const Call<T>& c = x.c;
  const long rows = x.p.rows;
  bool strange = false;
  fetch_lanes(x, c.query, c.i, c.k, (T)c.scale, x.queries, rank, size);
  for (long i = rank; i < c.i; i += size) strange |= not_finite(x.queries + i * c.k * rows, rows, c.k, rows);
  const Map<T>* maps[] = {&c.logits, &c.weights};
  T* const lanes[] = {x.logits_by_query, x.weights_by_query};
  for (int w = 0; w < 2; ++w) {
    const long numbers = maps[w]->query_numbers();
    if (numbers && rank == 0)
      transpose(x.count, numbers, rows, maps[w]->by_query + (x.b * c.n + x.n0) * numbers, numbers, lanes[w], rows, T(1));
  }
  if (c.keep_below)
    for (long j = rank; j < c.j; j += size)
      for (long r = 0; r < rows; ++r) {
        const uint64_t row = (uint64_t)(x.b * c.j + j) * c.n + x.n0 + r;
        x.dropout_keys[j * rows + r] =
            hash(hash((uint32_t)row ^ (uint32_t)c.seed_0) ^ (uint32_t)(row >> 32) ^ (uint32_t)c.seed_1);
      }
  return strange;
}
