// The arguments of a call (call.py builds the same structure), its division into blocks of queries, tiles of
// keys and segments of tiles, its scratch memory, and its teams of threads.
#pragma once
#include <atomic>
#include <cstdlib>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "vec.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#ifdef __SANITIZE_ADDRESS__  // test builds also detect overruns between parts of the workspace
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

// One tensor argument. Strides are in elements; a broadcast axis has stride 0.
//
//   heads         [batch, head, position, size], the last axis contiguous
//   mask          strides for all four axes; form 1: bool (one byte), 2: T. Form of its gradient: the number
//                 of batch elements or parts that have their own
//   maps, bias    contiguous; form: groups of a static map, rank of a map by position (0: full)
template <class T>
struct Tensor {
  T* at;
  int64_t batch, head, row, column, form;
  T* rows(long b, long h) const { return at + b * batch + h * head; }
};

// The tensor fields of Problem (problem.py), in the same order.
#define FOR_EACH_TENSOR(DO)                                                                              \
  DO(query) DO(key) DO(value) DO(logits_mix) DO(weights_mix) DO(mask) DO(query_logits_mix) DO(memory_logits_mix) \
  DO(query_weights_mix) DO(memory_weights_mix) DO(weights_mix_bias)

// The structure that Python passes; call.py builds the same one from the fields of Problem. Increase VERSION
// when a field changes its meaning but not its place.
constexpr int64_t VERSION = 3;
template <class T>
struct Arguments {
  int64_t size, version;
  int64_t b, i, h, j, n, m, k, v;  // batch, key/softmax/value heads, queries, keys, key and value size
#define DECLARE(name) Tensor<T> name;
  FOR_EACH_TENSOR(DECLARE)
#undef DECLARE
  Tensor<T> output, grad_output;
  T* normalizer;  // [2, b, h, n]: per row the maximum logit and 1 / sum of exp; both 0 if fully masked
#define DECLARE(name) Tensor<T> grad_##name;  // mask and maps by memory: zeroed by the caller
  FOR_EACH_TENSOR(DECLARE)
#undef DECLARE
  int64_t parts;  // of the batch: elements of a part run in order and share accumulators of map gradients
  char *bad_query, *bad_key, *bad_value;  // [b, i, n], [b, i, m], [b, j, m, v]: where not finite
  int64_t is_causal, keep_below, seed_0, seed_1;  // dropout keeps hash >= keep_below (24 bits); 0: off
  double scale, keep_scale;
  int64_t threads;
};

template <class T>
using Heads = Tensor<T>;

// A map across heads: a static part (the identity if null) plus optional parts by query and by memory
// position. A part by position is a full matrix, or with rank R > 0 its factors [2 R + 1, heads]: R rows
// down(r, in), R rows up(r, out) and a diagonal, for diagonal + sum over r of down(r, in) up(r, out).
template <class T>
struct Map {
  T* all;        // [groups, in / groups, out / groups]: heads mix within their group
  T* by_query;   // [b, n, in, out]
  T* by_memory;  // [b, m, in, out]
  long ins, outs, groups, query_rank, memory_rank;
  bool none() const { return !all && !by_query && !by_memory; }
  long static_numbers() const { return ins * outs / groups; }
  long numbers(long rank) const { return rank ? (2 * rank + 1) * ins : ins * outs; }
  long query_numbers() const { return by_query ? numbers(query_rank) : 0; }
  long memory_numbers() const { return by_memory ? numbers(memory_rank) : 0; }
  long rank() const { return query_rank < memory_rank ? memory_rank : query_rank; }
};

template <class T>
struct Call : Arguments<T> {
  Map<T> logits, weights, grad_logits, grad_weights;
  T *bias, *grad_bias;
  explicit Call(const Arguments<T>& a)
      : Arguments<T>(a),
        logits(map(a.logits_mix, a.query_logits_mix, a.memory_logits_mix, a.i, a.h)),
        weights(map(a.weights_mix, a.query_weights_mix, a.memory_weights_mix, a.h, a.j)),
        grad_logits(gradient(logits, a.grad_logits_mix, a.grad_query_logits_mix, a.grad_memory_logits_mix)),
        grad_weights(gradient(weights, a.grad_weights_mix, a.grad_query_weights_mix, a.grad_memory_weights_mix)),
        bias(a.weights_mix_bias.at),
        grad_bias(a.grad_weights_mix_bias.at) {}
  static Map<T> map(const Tensor<T>& all, const Tensor<T>& by_query, const Tensor<T>& by_memory, long ins, long outs) {
    return {all.at, by_query.at, by_memory.at, ins, outs, all.at ? all.form : 1, by_query.form, by_memory.form};
  }
  static Map<T> gradient(Map<T> of, const Tensor<T>& all, const Tensor<T>& by_query, const Tensor<T>& by_memory) {
    of.all = all.at, of.by_query = by_query.at, of.by_memory = by_memory.at;
    return of;
  }
  long first_of_part(long part) const { return (part * this->b + this->parts - 1) / this->parts; }
};

inline long up(long x, long step) { return (x + step - 1) / step * step; }
inline long least(long a, long b) { return a < b ? a : b; }
inline long most(long a, long b) { return a < b ? b : a; }

// The tiling of a call. It depends only on the call and never on the number of threads, so that the order of
// every sum is fixed.
template <class T>
struct Plan {
  long rows;      // queries per block, a multiple of the vector width
  long blocks;    // blocks of queries per batch element
  long keys;      // keys per tile
  long tiles;     // tiles of keys
  long segments;  // groups of consecutive tiles; each segment belongs to one thread of the team
  long head;      // stride between heads of a tile, padded so that heads do not share cache sets
  Plan(const Call<T>& c, long most_rows, long units) {
    blocks = (c.n + most_rows - 1) / most_rows;
    rows = up((c.n + blocks - 1) / blocks, W<T>);
    blocks = (c.n + rows - 1) / rows;
    keys = c.h > 16 || BYTES < 64 ? 32 : 64;  // all heads of a tile should fit in L2
    tiles = (c.m + keys - 1) / keys;
    segments = least(tiles, units >= 16 ? 1 : 16 / units);
    head = keys * rows + W<T>;
  }
  // Scratch for low-rank maps: two projections of a tile, [2][rank][keys * rows].
  long low_numbers(const Call<T>& c) const {
    return 2 * most(c.logits.rank(), c.weights.rank()) * keys * rows;
  }
  long segment(long tile) const { return tile * segments / tiles; }
  bool first_of_segment(long tile) const { return tile == 0 || segment(tile) != segment(tile - 1); }
  // The number of tiles that the block starting at query n0 attends to.
  long tiles_seen(const Call<T>& c, long n0) const {
    return c.is_causal ? least(tiles, (least(n0 + rows, c.n) + keys - 1) / keys) : tiles;
  }
};

// The scratch memory of a call: one allocation that Parts divides. A small one is kept for the next call,
// because page faults on new memory cost a short call as much time as its arithmetic.
class Workspace {
 public:
  explicit Workspace(long bytes) {
    at = kept().exchange(nullptr);
    if (at && at->bytes < bytes) std::free(at), at = nullptr;
    if (at) return;
    void* got = nullptr;
    if (posix_memalign(&got, PAGE, up(bytes + PAGE, PAGE))) throw std::bad_alloc();
#ifdef __linux__
    if (bytes >= PAGE) madvise(got, up(bytes + PAGE, PAGE), MADV_HUGEPAGE);
#endif
    at = static_cast<Head*>(got);
    at->bytes = bytes;
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() {
    ASAN_UNPOISON_MEMORY_REGION(begin(), at->bytes);
    if (at->bytes <= MOST_KEPT) at = kept().exchange(at);
    std::free(at);
  }
  char* begin() const { return reinterpret_cast<char*>(at) + 4096; }

 private:
  static constexpr long PAGE = 2 << 20, MOST_KEPT = 64 << 20;
  struct Head {
    long bytes;
  }* at;
  static std::atomic<Head*>& kept() {
    static std::atomic<Head*> last{nullptr};
    return last;
  }
};

// Hands out parts of a workspace; without a workspace (at is null) it only counts bytes.
struct Parts {
  char* at = nullptr;
  long used = 0;
  template <class T>
  T* take(long count) {
    char* part = at ? at + used : nullptr;
    const long bytes = count * (long)sizeof(T), whole = up(bytes, 64) + 64;
    if (part) ASAN_POISON_MEMORY_REGION(part + bytes, whole - bytes);
    used += whole;
    return reinterpret_cast<T*>(part);
  }
};

// Threads that work on one unit together: each takes a share, and all meet at barriers.
class Team {
 public:
  int size = 1;
  void barrier() {
    if (size == 1) return;
    const long mine = round.load(std::memory_order_acquire);
    if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
      arrived.store(0, std::memory_order_relaxed);
      round.fetch_add(1, std::memory_order_release);
    } else {
      for (long spins = 0; round.load(std::memory_order_acquire) == mine; ++spins)
        if (spins > 20000) yield();
    }
  }

 private:
  static void yield();
  alignas(64) std::atomic<int> arrived{0};
  alignas(64) std::atomic<long> round{0};
};
