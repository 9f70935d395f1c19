// The backward: gradients of all inputs from grad_output and the normalizer. Weights are recomputed.
//
//   for each part of the batch:                                                units, shared among teams
//    for each batch element, in order:
//     for each block of queries (the lanes), in order:
//       pass 1, for each tile of keys:                                         shared within a team
//         scores = queries . keys (stored);  weights = softmax(mix(scores)) by the normalizer (stored)
//         d_mixed = grad_output . values;  d_weights = mix^T(d_mixed) (stored)
//         grad_weights_mix += weights x d_mixed;  row term += weights * d_weights
//         grad_values += mix(weights)^T . grad_output
//       pass 2, for each tile of keys:
//         d_logits = weights * (d_weights - row term);  grad_mask, grad_logits_mix += scores x d_logits
//         d_scores = mix^T(d_logits);  grad_keys += d_scores^T . queries;  grad_queries += d_scores . keys
//
// The row term is a sum over all keys, so pass 2 starts after pass 1 has finished the row. Multi-head
// attention uses grad_output . output instead, but with mixed heads the two are not equal. Each segment of
// keys belongs to one thread of the team, and sums over segments, blocks and batch elements run in a fixed
// order. Results therefore do not depend on the number of threads.
#pragma once
#include "tile.h"

// Accumulators for the gradients of a map over the keys of a block, one set per segment.
template <class T>
struct MapSums {
  const Map<T>& grad;
  long lanes;           // queries per block
  T *fixed, *by_query;  // [segment][number][one vector], [segment][number][rows]
  MapSums(Parts& parts, const Map<T>& grad, const Plan<T>& p)
      : grad(grad),
        lanes(p.rows),
        fixed(parts.take<T>(own_fixed() ? p.segments * grad.static_numbers() * W<T> : 0)),
        by_query(parts.take<T>(p.segments * grad.query_numbers() * p.rows)) {}
  // Whether the static map has its own accumulators. With a full map by query, its gradient is the sum of
  // that map's gradients over queries.
  bool own_fixed() const { return grad.all && !(grad.by_query && !grad.query_rank); }
  T* fixed_of(long segment) const { return fixed + segment * grad.static_numbers() * W<T>; }
  T* by_query_of(long segment) const { return by_query + segment * grad.query_numbers() * lanes; }
};

// Scratch of a team for one batch element.
template <class T>
struct BackwardTeam {
  T *queries, *query_rows, *logits_by_query, *weights_by_query, *grads, *grad_rows, *normalizer;
  T *scores, *weights, *d_weights;                                 // [tile][head][key][rows]
  T *row_terms, *grad_queries;                                     // [segment][..][rows]
  MapSums<T> for_logits, for_weights;
  T* for_bias;                                                     // [segment][j][rows]
  T *grad_keys, *grad_values;                                      // [head][m][padded size]
  uint32_t* dropout_keys;
  BackwardTeam(Parts& parts, const Call<T>& c, const Plan<T>& p)
      : queries(parts.take<T>(c.i * c.k * p.rows)),
        query_rows(parts.take<T>(c.i * p.rows * padded(c.k))),
        logits_by_query(parts.take<T>(c.logits.query_numbers() * p.rows)),
        weights_by_query(parts.take<T>(c.weights.query_numbers() * p.rows)),
        grads(parts.take<T>(c.j * c.v * p.rows)),
        grad_rows(parts.take<T>(c.j * p.rows * padded(c.v))),
        normalizer(parts.take<T>(2 * c.h * p.rows)),
        scores(parts.take<T>(c.logits.none() ? 0 : p.tiles * c.i * p.head)),
        weights(parts.take<T>(p.tiles * c.h * p.head)),
        d_weights(parts.take<T>(p.tiles * c.h * p.head)),
        row_terms(parts.take<T>(p.segments * c.h * p.rows)),
        grad_queries(parts.take<T>(p.segments * c.i * c.k * p.rows)),
        for_logits(parts, c.grad_logits, p),
        for_weights(parts, c.grad_weights, p),
        for_bias(parts.take<T>(c.grad_bias ? p.segments * c.j * p.rows : 0)),
        grad_keys(parts.take<T>(direct(c.grad_key, c.k) ? 0 : c.i * c.m * padded(c.k))),
        grad_values(parts.take<T>(direct(c.grad_value, c.v) ? 0 : c.j * c.m * padded(c.v))),
        dropout_keys(parts.take<uint32_t>(c.keep_below ? c.j * p.rows : 0)) {}
  static long padded(long size) { return up(size, W<T>); }
  // Whether the gradient needs no padded accumulator: its rows hold full vectors, or it is not wanted.
  static bool direct(const Heads<T>& grad, long size) { return !grad.at || size % W<T> == 0; }
};

// Scratch of a thread for one tile.
template <class T>
struct BackwardThread {
  T *d_mixed, *mixed, *d_scores, *hidden, *low, *numbers, *row_term;
  BackwardThread(Parts& parts, const Call<T>& c, const Plan<T>& p)
      : d_mixed(parts.take<T>(c.j * p.head)),
        mixed(parts.take<T>(c.j * p.head)),
        d_scores(parts.take<T>(c.i * p.head)),
        hidden(parts.take<T>(p.keys * p.rows)),
        low(parts.take<T>(p.low_numbers(c))),
        numbers(parts.take<T>(most(c.logits.memory_numbers(), c.weights.memory_numbers()) * W<T>)),
        row_term(parts.take<T>(c.h * p.rows)) {}
};

// The accumulator for a batch element's gradients of keys or values: the gradient itself, or padded scratch.
template <class T>
Heads<T> sums_of(const Heads<T>& grad, T* own, long b, long m, long size) {
  if (BackwardTeam<T>::direct(grad, size)) return {grad.at ? grad.rows(b, 0) : nullptr, 0, grad.head, grad.row, 1, 0};
  const long width = BackwardTeam<T>::padded(size);
  return {own, 0, m * width, width, 1, 0};
}

// Accumulates outer products in one vector of lanes: to[in][out] (+)= sum over k of in(., k) * out(., k),
// with `step` between numbers. `begins` overwrites `to` instead of adding.
template <class T>
INLINE void add_outer(bool begins, long ins, long outs, long depth, Numbers<T> in, Numbers<T> out, T* to, long step) {
  if (begins) lanewise<T, false>(ins, outs, depth, in, out, to, outs * step, step);
  else lanewise<T, true>(ins, outs, depth, in, out, to, outs * step, step);
}

// Gradients of the low-rank factors down, up and diagonal, in the layout of Factors: for queries (one vector
// of lanes, summed over keys) or for a memory position (one key, summed over vectors).
template <class T>
void factor_gradients(bool begins, long rank, long heads, long depth, Numbers<T> in, Numbers<T> d_out, Numbers<T> low,
                      Numbers<T> d_low, T* to, long step) {
  add_outer(begins, rank, heads, depth, d_low, in, to, step);
  add_outer(begins, rank, heads, depth, low, d_out, to + rank * heads * step, step);
  for (long o = 0; o < heads; ++o) {
    T* sum = to + (2 * rank * heads + o) * step;
    Vec<T> total = begins ? Vec<T>{} : load(sum);
    for (long k = 0; k < depth; ++k)
      total += load(in.at + o * in.row_step + k * in.step) * load(d_out.at + o * d_out.row_step + k * d_out.step);
    store(sum, total);
  }
}

// Backward of out = mix(in): accumulates the gradients of the map from in and d_out, both [head][key][query].
template <class T>
void map_gradients(const Block<T>& x, long tile, bool begins, const Map<T>& map, const T* lanes_by_query, const T* in,
                   const T* d_out, const MapSums<T>& sums, T* numbers) {
  const Map<T>& grad = sums.grad;
  const long keys = x.keys(tile), rows = x.p.rows, head = x.p.head, segment = x.p.segment(tile);
  const long ins = map.ins, outs = map.outs;
  T* const low = x.low;
  T* const d_low = x.low + x.p.keys * rows * map.rank();
  for (long l = 0; grad.by_query && l < rows; l += W<T>) {
    T* to = sums.by_query_of(segment) + l;
    const Numbers<T> from = {in + l, head, rows}, back = {d_out + l, head, rows};
    if (!map.query_rank) {
      add_outer(begins, ins, outs, keys, from, back, to, rows);
      continue;
    }
    const long rank = map.query_rank, step = x.p.keys * rows;
    const Factors<T> f(lanes_by_query, rank, ins, rows, false);
    project(x, keys, f.down, rank, ins, in, l, low);
    project(x, keys, f.up, rank, ins, d_out, l, d_low);
    factor_gradients<T>(begins, rank, ins, keys, from, back, {low + l, step, rows}, {d_low + l, step, rows}, to, rows);
  }
  if (sums.own_fixed()) {
    const long each_in = ins / map.groups, each_out = outs / map.groups;
    T* to = sums.fixed_of(segment);
    for (long g = 0; g < map.groups; ++g, to += each_in * each_out * W<T>)
      add_outer<T>(begins, each_in, each_out, keys * x.lanes(), {in + g * each_in * head, head, W<T>},
                   {d_out + g * each_out * head, head, W<T>}, to, W<T>);
  }
  for (long m = 0; grad.by_memory && m < keys; ++m) {
    const Numbers<T> from = {in + m * rows, head, W<T>}, back = {d_out + m * rows, head, W<T>};
    const long count = grad.memory_numbers(), place = (x.b * x.c.m + x.first(tile) + m) * count, rank = map.memory_rank;
    if (rank) {
      const Factors<T> f(map.by_memory + place, rank, ins, 1, false);
      product<T, false>(rank, x.lanes(), ins, f.down, from.at, head, low, rows);
      product<T, false>(rank, x.lanes(), ins, f.up, back.at, head, d_low, rows);
      factor_gradients<T>(true, rank, ins, x.lanes(), from, back, {low, rows, W<T>}, {d_low, rows, W<T>}, numbers, W<T>);
    } else {
      add_outer(true, ins, outs, x.lanes(), from, back, numbers, (long)W<T>);
    }
    for (long at = 0; at < count; ++at) grad.by_memory[place + at] += total<T>(load(numbers + at * W<T>));
  }
}

// Adds d_logits to the gradient of the mask, summed over broadcast axes. A mask that is constant over keys
// shifts all logits of a row equally and does not change the softmax, so its gradient stays 0.
template <class T>
void mask_gradient(const Block<T>& x, long tile, const T* d_logits) {
  const Tensor<T>& grad = x.c.grad_mask;
  const long keys = x.keys(tile), rows = x.p.rows;
  if (!grad.at || (grad.column == 0 && x.c.m > 1)) return;
  for (long h = 0; h < x.c.h; ++h) {
    T* to = grad.at + x.b * grad.form / x.c.b * grad.batch + h * grad.head + x.n0 * grad.row + x.first(tile) * grad.column;
    const T* from = d_logits + h * x.p.head;
    if (grad.row && grad.column == 1) {
      transpose<T, true>(keys, x.count, keys, from, rows, to, grad.row, T(1));
      continue;
    }
    for (long m = 0; m < keys; ++m)
      for (long r = 0; r < x.count; ++r) to[r * grad.row + m * grad.column] += from[m * rows + r];
  }
}

// Replaces NaN scores by 0 for the gradients of the maps, because a masked NaN would give 0 * NaN there. If a
// NaN is not masked, the weights already hold it.
template <class T>
void clear_nan(const Block<T>& x, long tile, T* scores) {
  for (long i = 0; i < x.c.i; ++i)
    for (long at = 0; at < x.keys(tile) * x.p.rows; at += W<T>) {
      const Vec<T> score = load(scores + i * x.p.head + at);
      store(scores + i * x.p.head + at, score == score ? score : Vec<T>{});
    }
}

// Pass 1 on one tile. `to` accumulates the gradient of the values; is_new overwrites it instead of adding.
template <class T>
void weigh_again(const Block<T>& x, long tile, BackwardTeam<T>& own, BackwardThread<T>& mine, const Heads<T>& to,
                 bool is_new) {
  const Call<T>& c = x.c;
  const Plan<T>& p = x.p;
  const long keys = x.keys(tile), rows = p.rows, first = x.first(tile), segment = p.segment(tile);
  const bool begins = p.first_of_segment(tile);
  T* weights = own.weights + tile * c.h * p.head;
  T* d_weights = own.d_weights + tile * c.h * p.head;
  T* scores = c.logits.none() ? weights : own.scores + tile * c.i * p.head;
  score(x, tile, scores);
  if (scores != weights) mix(x, tile, c.logits, x.logits_by_query, false, scores, weights);
  hide(x, tile, weights);
  if (c.bad_key && scores != weights) clear_nan(x, tile, scores);
  T* d_mixed = c.weights.none() ? d_weights : mine.d_mixed;
  for (long j = 0; j < c.j; ++j) {
    const Numbers<T> values = {c.value.rows(x.b, j) + first * c.value.row, c.value.row, 1};
    product<T, false>(keys, x.lanes(), c.v, values, own.grads + j * c.v * rows, rows, d_mixed + j * p.head, rows,
                      {values.at + c.value.head, c.value.row, j + 1 < c.j ? keys : 0, c.v});
  }
  if (c.keep_below) drop(x, tile, d_mixed);
  for (long h = 0; h < c.h; ++h)
    for (long l = 0; l < rows; l += W<T>) {
      const Vec<T> largest = load(own.normalizer + h * rows + l), once = load(own.normalizer + (c.h + h) * rows + l);
      for (long m = 0; m < keys; ++m) {
        T* at = weights + h * p.head + m * rows + l;
        store(at, exp(load(at) - largest) * once);
      }
    }
  map_gradients(x, tile, begins, c.weights, x.weights_by_query, weights, d_mixed, own.for_weights, mine.numbers);
  if (d_mixed != d_weights) mix(x, tile, c.weights, x.weights_by_query, true, d_mixed, d_weights);
  for (long h = 0; h < c.h; ++h)
    for (long l = 0; l < rows; l += W<T>) {
      T* sum = own.row_terms + (segment * c.h + h) * rows + l;
      Vec<T> term = begins ? Vec<T>{} : load(sum);
      for (long m = 0; m < keys; ++m) {
        const long at = h * p.head + m * rows + l;
        term += load(weights + at) * load(d_weights + at);
      }
      store(sum, term);
    }
  if (c.grad_bias)
    for (long j = 0; j < c.j; ++j)
      for (long l = 0; l < rows; l += W<T>) {
        T* sum = own.for_bias + (segment * c.j + j) * rows + l;
        Vec<T> term = begins ? Vec<T>{} : load(sum);
        for (long m = 0; m < keys; ++m) term += load(d_mixed + j * p.head + m * rows + l);
        store(sum, term);
      }
  if (!to.at) return;
  const T* mixed = mixed_weights<T>(x, tile, weights, nullptr, mine.mixed);
  const long width = BackwardTeam<T>::padded(c.v);
  for (long j = 0; j < c.j; ++j) {
    const Numbers<T> numbers = {mixed + j * p.head, rows, 1};
    const T* grad = own.grad_rows + j * rows * width;
    T* sum = to.at + j * to.head + first * to.row;
    if (is_new) product<T, false>(keys, width / W<T>, rows, numbers, grad, width, sum, to.row);
    else product<T, true>(keys, width / W<T>, rows, numbers, grad, width, sum, to.row);
  }
}

// Pass 2 on one tile. `to` accumulates the gradient of the keys; is_new overwrites it instead of adding.
template <class T>
void differentiate(const Block<T>& x, long tile, BackwardTeam<T>& own, BackwardThread<T>& mine, const Heads<T>& to,
                   bool is_new) {
  const Call<T>& c = x.c;
  const Plan<T>& p = x.p;
  const long keys = x.keys(tile), rows = p.rows, first = x.first(tile), segment = p.segment(tile);
  const bool begins = p.first_of_segment(tile);
  T* d_logits = own.d_weights + tile * c.h * p.head;
  for (long h = 0; h < c.h; ++h)
    for (long l = 0; l < rows; l += W<T>) {
      const Vec<T> term = load(mine.row_term + h * rows + l);
      for (long m = 0; m < keys; ++m) {
        const long at = (tile * c.h + h) * p.head + m * rows + l;
        store(own.d_weights + at, load(own.weights + at) * (load(own.d_weights + at) - term));
      }
    }
  mask_gradient(x, tile, d_logits);
  T* d_scores = d_logits;
  if (!c.logits.none()) {
    map_gradients(x, tile, begins, c.logits, x.logits_by_query, own.scores + tile * c.i * p.head, d_logits,
                  own.for_logits, mine.numbers);
    d_scores = mine.d_scores;
    mix(x, tile, c.logits, x.logits_by_query, true, d_logits, d_scores);
  }
  const long width = BackwardTeam<T>::padded(c.k);
  for (long i = 0; i < c.i; ++i) {
    const T* key = c.key.rows(x.b, i) + first * c.key.row;
    const T* own_scores = d_scores + i * p.head;
    if (to.at) {
      T* sum = to.at + i * to.head + first * to.row;
      const T* query = own.query_rows + i * rows * width;
      if (is_new) product<T, false>(keys, width / W<T>, rows, {own_scores, rows, 1}, query, width, sum, to.row);
      else product<T, true>(keys, width / W<T>, rows, {own_scores, rows, 1}, query, width, sum, to.row);
    }
    if (c.grad_query.at) {
      const Ahead<T> ahead = {key + c.key.head, c.key.row, i + 1 < c.i ? keys : 0, c.k};
      T* sum = own.grad_queries + (segment * c.i + i) * c.k * rows;
      if (begins) product<T, false>(c.k, x.lanes(), keys, {key, 1, c.key.row}, own_scores, rows, sum, rows, ahead);
      else product<T, true>(c.k, x.lanes(), keys, {key, 1, c.key.row}, own_scores, rows, sum, rows, ahead);
    }
  }
}

// Packs the block's rows of heads rank, rank + team, ... times factor, as [head][rows][padded size]; pads
// with zeros.
template <class T>
void fetch_rows(const Block<T>& x, const Heads<T>& from, long heads, long size, T factor, T* to, long rank, long team) {
  const long width = BackwardTeam<T>::padded(size);
  for (long h = rank; h < heads; h += team)
    for (long r = 0; r < x.p.rows; ++r) {
      T* line = to + (h * x.p.rows + r) * width;
      const T* row = from.rows(x.b, h) + (x.n0 + r) * from.row;
      for (long e = 0; e < width; ++e) line[e] = r < x.count && e < size ? row[e] * factor : T(0);
    }
}

// The place of number `at` of a full map [in, out] in the grouped static map; -1 if it is outside all groups.
template <class T>
long place_in_groups(const Map<T>& map, long at) {
  const long in = at / map.outs, out = at % map.outs, each_in = map.ins / map.groups, each_out = map.outs / map.groups;
  if (in / each_in != out / each_out) return -1;
  return in * each_out + out % each_out;
}

// Epilogue of a block: sums accumulators over segments and, for static maps and bias, over lanes. Writes the
// gradients of the block's queries and maps by query.
template <class T>
void gather(const Block<T>& x, long segments, BackwardTeam<T>& own, T* const* sums, long rank, long size) {
  const Call<T>& c = x.c;
  const long rows = x.p.rows;
  const auto sum_segments = [&](T* part, long step, long count) {
    for (long at = 0; at < count; at += W<T>) {
      Vec<T> sum = load(part + at);
      for (long s = 1; s < segments; ++s) sum += load(part + s * step + at);
      store(part + at, sum);
    }
  };
  for (long i = rank; c.grad_query.at && i < c.i; i += size) {
    T* part = own.grad_queries + i * c.k * rows;
    sum_segments(part, c.i * c.k * rows, c.k * rows);
    T* to = c.grad_query.rows(x.b, i) + x.n0 * c.grad_query.row;
    transpose(c.k, x.count, c.k, part, rows, to, c.grad_query.row, (T)c.scale);
  }
  const MapSums<T>* maps[] = {&own.for_logits, &own.for_weights};
  for (int w = 0; w < 2; ++w) {
    const Map<T>& grad = maps[w]->grad;
    const long fixed = grad.static_numbers(), numbers = grad.query_numbers();
    for (long at = rank; maps[w]->own_fixed() && at < fixed; at += size) {
      sum_segments(maps[w]->fixed + at * W<T>, fixed * W<T>, W<T>);
      sums[w][at] += total<T>(load(maps[w]->fixed + at * W<T>));
    }
    for (long at = rank; at < numbers; at += size) {
      T* part = maps[w]->by_query + at * rows;
      sum_segments(part, numbers * rows, rows);
      for (long r = 0; r < x.count; ++r) grad.by_query[(x.b * c.n + x.n0 + r) * numbers + at] = part[r];
      const long place = grad.all && !maps[w]->own_fixed() ? place_in_groups(grad, at) : -1;
      for (long l = 0; place >= 0 && l < rows; l += W<T>) sums[w][place] += total<T>(load(part + l));
    }
  }
  for (long j = rank; c.grad_bias && j < c.j; j += size) {
    T* part = own.for_bias + j * rows;
    sum_segments(part, c.j * rows, rows);
    for (long l = 0; l < rows; l += W<T>) sums[2][j] += total<T>(load(part + l));
  }
}

// One batch element. `sums` accumulates the gradients of the static maps (logits, weights) and of the bias
// over the elements of a part, and starts at zero. Returns whether an input is not finite.
template <class T>
bool backward_element(const Call<T>& c, const Plan<T>& p, long b, BackwardTeam<T>& own, BackwardThread<T>& mine,
                      T* const* sums, Team& team, long rank) {
  const Heads<T> keys = sums_of(c.grad_key, own.grad_keys, b, c.m, c.k);
  const Heads<T> values = sums_of(c.grad_value, own.grad_values, b, c.m, c.v);
  bool strange = false;
  long seen_before = 0;
  for (long n0 = 0; n0 < c.n; n0 += p.rows) {
    const Block<T> x = {c,           p,           b,           n0, least(p.rows, c.n - n0),
                        own.queries, own.logits_by_query, own.weights_by_query, own.dropout_keys, mine.hidden, mine.low};
    const long seen = p.tiles_seen(c, n0), segments = p.segment(seen - 1) + 1;
    strange |= fetch(x, rank, team.size);
    fetch_lanes(x, c.grad_output, c.j, c.v, T(1), own.grads, rank, team.size);
    fetch_rows(x, c.grad_output, c.j, c.v, T(1), own.grad_rows, rank, team.size);
    fetch_rows(x, c.query, c.i, c.k, (T)c.scale, own.query_rows, rank, team.size);
    for (long h = rank; h < c.h; h += team.size)
      for (long r = 0; r < p.rows; ++r)
        for (long w = 0; w < 2; ++w)
          own.normalizer[(w * c.h + h) * p.rows + r] =
              r < x.count ? c.normalizer[((w * c.b + b) * c.h + h) * c.n + n0 + r] : T(0);
    team.barrier();
    for (long t = 0; t < seen; ++t)
      if (p.segment(t) % team.size == rank) {
        if (x.is_last()) strange |= not_finite(x, t);
        weigh_again(x, t, own, mine, values, t >= seen_before);
      }
    team.barrier();
    for (long at = 0; at < c.h * p.rows; at += W<T>) {
      Vec<T> sum = load(own.row_terms + at);
      for (long s = 1; s < segments; ++s) sum += load(own.row_terms + s * c.h * p.rows + at);
      store(mine.row_term + at, sum);
    }
    for (long t = 0; t < seen; ++t)
      if (p.segment(t) % team.size == rank) differentiate(x, t, own, mine, keys, t >= seen_before);
    team.barrier();
    gather(x, segments, own, sums, rank, team.size);
    seen_before = seen;
  }
  const auto write = [&](const Heads<T>& from, const Heads<T>& to, long heads, long size) {
    for (long h = 0; to.at && h < heads; ++h)
      for (long t = 0; t < p.tiles; ++t)
        for (long m = t * p.keys; p.segment(t) % team.size == rank && m < least(c.m, (t + 1) * p.keys); ++m) {
          T* row = to.rows(b, h) + m * to.row;
          if (t >= seen_before) std::memset(row, 0, size * sizeof(T));
          else if (from.at + h * from.head + m * from.row != row)
            std::memcpy(row, from.at + h * from.head + m * from.row, size * sizeof(T));
        }
  };
  write(keys, c.grad_key, c.i, c.k);
  write(values, c.grad_value, c.j, c.v);
  return strange;
}
