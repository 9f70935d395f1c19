// The forward: output and normalizer.
//
//   for each batch element, each block of queries (the lanes):                units, shared among teams
//     pass 1, for each tile of keys:                                          shared within a team
//       scores = queries . keys;  logits = mix(scores), masked
//       weights = exp(logits - maximum of the tile), stored;  sums of the tile
//     online softmax over tiles: per query and softmax head, a correction factor for each tile
//     pass 2, for each tile of keys:
//       mixed = mix(weights * factor);  output += mixed . values
//     epilogue: sum the segments' outputs, transpose to rows
//
// The second mix combines heads, so the softmax sums of all heads must be complete before it starts. A team
// therefore stores the weights of one block between the passes: heads x memory_len x rows numbers.
#pragma once
#include "tile.h"

// Scratch of a team for one block.
template <class T>
struct ForwardTeam {
  T *queries, *logits_by_query, *weights_by_query, *weights, *largest, *sums, *output;
  uint32_t* dropout_keys;
  ForwardTeam(Parts& parts, const Call<T>& c, const Plan<T>& p)
      : queries(parts.take<T>(c.i * c.k * p.rows)),
        logits_by_query(parts.take<T>(c.logits.query_numbers() * p.rows)),
        weights_by_query(parts.take<T>(c.weights.query_numbers() * p.rows)),
        weights(parts.take<T>(p.tiles * c.h * p.head)),
        largest(parts.take<T>(p.tiles * c.h * p.rows)),
        sums(parts.take<T>(p.tiles * c.h * p.rows)),
        output(parts.take<T>(p.segments * c.j * c.v * p.rows)),
        dropout_keys(parts.take<uint32_t>(c.keep_below ? c.j * p.rows : 0)) {}
};

// Scratch of a thread for one tile.
template <class T>
struct ForwardThread {
  T *scores, *mixed, *hidden, *low;
  ForwardThread(Parts& parts, const Call<T>& c, const Plan<T>& p)
      : scores(parts.take<T>(c.i * p.head)), mixed(parts.take<T>(c.j * p.head)), hidden(parts.take<T>(p.keys * p.rows)),
        low(parts.take<T>(p.low_numbers(c))) {}
};

// weights = exp(logits - maximum of the tile), in place; stores the maximum and the sum per head and query.
template <class T>
void exponentiate(const Block<T>& x, long tile, T* logits, T* largest, T* sums) {
  const long keys = x.keys(tile), rows = x.p.rows;
  for (long h = 0; h < x.c.h; ++h)
    over_lanes<T>(x.lanes(), [&](long l, auto constant) {
      constexpr int L = decltype(constant)::value;
      T* at = logits + h * x.p.head + l * W<T>;
      Vec<T> most[L], sum[L] = {};
      for (int e = 0; e < L; ++e) most[e] = all(-T(INFINITY));
      for (long m = 0; m < keys; ++m)
        for (int e = 0; e < L; ++e) most[e] = larger<T>(load(at + m * rows + e * W<T>), most[e]);
      Vec<T> base[L];
      for (int e = 0; e < L; ++e) {
        store(largest + h * rows + (l + e) * W<T>, most[e]);
        base[e] = most[e] == all(-T(INFINITY)) ? Vec<T>{} : most[e];
      }
      for (long m = 0; m < keys; ++m)
        for (int e = 0; e < L; ++e) {
          T* to = at + m * rows + e * W<T>;
          const Vec<T> weight = exp(load(to) - base[e]);
          store(to, weight);
          sum[e] += weight;
        }
      for (int e = 0; e < L; ++e) store(sums + h * rows + (l + e) * W<T>, sum[e]);
    });
}

// Online softmax over the tiles of a row: replaces each tile's maximum by the factor that normalizes its
// weights, exp(maximum of the tile - maximum of the row) / sum of the row. Writes the normalizer.
template <class T>
void normalize(const Block<T>& x, long seen, long h, T* largest, const T* sums, T* normalizer) {
  const long step = x.c.h * x.p.rows;
  for (long l = 0; l < x.p.rows; l += W<T>) {
    const long at = h * x.p.rows + l;
    Vec<T> most = all(-T(INFINITY)), sum = {};
    for (long t = 0; t < seen; ++t) most = larger<T>(load(largest + t * step + at), most);
    const Vec<T> base = most == all(-T(INFINITY)) ? Vec<T>{} : most;
    for (long t = 0; t < seen; ++t) sum += load(sums + t * step + at) * exp(load(largest + t * step + at) - base);
    const Vec<T> once = sum == Vec<T>{} ? Vec<T>{} : 1 / sum;
    for (long t = 0; t < seen; ++t)
      store(largest + t * step + at, exp(load(largest + t * step + at) - base) * once);
    for (long r = l; r < least(l + W<T>, x.count); ++r) {
      normalizer[r] = base[r - l];  // apart: base + log(sum) is inexact for large logits
      normalizer[x.c.b * x.c.h * x.c.n + r] = once[r - l];
    }
  }
}

// Sets the output to NaN for each query that attends to a value that is not finite.
template <class T>
void poison(const Block<T>& x, long tile, const T* mixed, T* output) {
  const Call<T>& c = x.c;
  for (long j = 0; j < c.j; ++j)
    for (long m = 0; m < x.keys(tile); ++m) {
      const char* bad = c.bad_value + ((x.b * c.j + j) * c.m + x.first(tile) + m) * c.v;
      for (long v = 0; v < c.v; ++v)
        for (long r = 0; bad[v] && r < x.p.rows; ++r)
          if (mixed[j * x.p.head + m * x.p.rows + r] != 0) output[(j * c.v + v) * x.p.rows + r] = NAN;
    }
}

// One unit: one block of queries of one batch element. Returns whether an input is not finite.
template <class T>
bool forward_block(const Call<T>& c, const Plan<T>& p, long unit, ForwardTeam<T>& own, ForwardThread<T>& mine,
                   Team& team, long rank) {
  const long n0 = (p.blocks - 1 - unit % p.blocks) * p.rows;  // last block first: the longest if causal
  const Block<T> x = {c,           p,           unit / p.blocks,     n0,                   least(p.rows, c.n - n0),
                      own.queries, own.logits_by_query, own.weights_by_query, own.dropout_keys, mine.hidden, mine.low};
  const long seen = p.tiles_seen(c, n0), rows = p.rows;
  bool strange = fetch(x, rank, team.size);
  team.barrier();
  for (long t = 0; t < seen; ++t) {
    if (p.segment(t) % team.size != rank) continue;
    T* weights = own.weights + t * c.h * p.head;
    T* scores = c.logits.none() ? weights : mine.scores;
    score(x, t, scores);
    if (scores != weights) mix(x, t, c.logits, x.logits_by_query, false, scores, weights);
    hide(x, t, weights);
    if (x.is_last()) strange |= not_finite(x, t);
    exponentiate(x, t, weights, own.largest + t * c.h * rows, own.sums + t * c.h * rows);
  }
  team.barrier();
  for (long h = rank; h < c.h; h += team.size)
    normalize(x, seen, h, own.largest, own.sums, c.normalizer + (x.b * c.h + h) * c.n + n0);
  team.barrier();
  for (long t = 0; t < seen; ++t) {
    if (p.segment(t) % team.size != rank) continue;
    T* weights = own.weights + t * c.h * p.head;
    const T* mixed = mixed_weights(x, t, weights, own.largest + t * c.h * rows, mine.mixed);
    T* output = own.output + p.segment(t) * c.j * c.v * rows;
    for (long j = 0; j < c.j; ++j) {
      const Numbers<T> values = {c.value.rows(x.b, j) + x.first(t) * c.value.row, 1, c.value.row};
      const Ahead<T> ahead = {values.at + c.value.head, c.value.row, j + 1 < c.j ? x.keys(t) : 0, c.v};
      T* to = output + j * c.v * rows;
      const T* weights = mixed + j * p.head;
      if (p.first_of_segment(t)) product<T, false>(c.v, x.lanes(), x.keys(t), values, weights, rows, to, rows, ahead);
      else product<T, true>(c.v, x.lanes(), x.keys(t), values, weights, rows, to, rows, ahead);
    }
    if (c.bad_value) poison(x, t, mixed, output);
  }
  team.barrier();
  const long segments = p.segment(seen - 1) + 1;
  for (long j = rank; j < c.j; j += team.size) {
    T* total = own.output + j * c.v * rows;
    for (long at = 0; at < c.v * rows; at += W<T>) {
      Vec<T> sum = load(total + at);
      for (long s = 1; s < segments; ++s) sum += load(total + s * c.j * c.v * rows + at);
      store(total + at, sum);
    }
    transpose(c.v, x.count, c.v, total, rows, c.output.rows(x.b, j) + n0 * c.output.row, c.output.row, T(1));
  }
  return strange;
}
