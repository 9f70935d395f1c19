// The entry points: forward and backward, in float and double. Each instruction set has its own library.
#include <sched.h>

#include <exception>
#include <vector>

#include "backward.h"
#include "forward.h"

void Team::yield() { sched_yield(); }

namespace {

enum Status { DONE = 0, NOT_FINITE = 1, NO_MEMORY = 2, OTHER_VERSION = 3 };

long threads_of(long asked) {
#ifdef _OPENMP
  return asked < 1 ? 1 : asked;
#else
  (void)asked;
  return 1;
#endif
}

// The number of threads per team with the lowest estimated time: rounds of units times the segments of the
// busiest thread, plus 3% for barriers. On a tie, the smaller team wins.
long team_size(long threads, long units, long segments) {
  long best = 1;
  double least_time = 1e300;
  for (long size = 1; size <= least(threads, segments); ++size) {
    const long teams = threads / size;
    const double rounds = (units + teams - 1) / teams;
    const double share = (segments + size - 1) / size;  // segments of the busiest thread
    const double time = rounds * share * (size == 1 ? 1.0 : 1.03);
    if (time < least_time) least_time = time, best = size;
  }
  return best;
}

// The number of queries per block. All tiles of a block stay in scratch between its two passes, with `heads`
// numbers per key and query. If a register block of queries fits in L2 (CACHE), the block is the largest that
// fits. Otherwise it exceeds L2 in any case, and only MOST limits it.
template <class T>
long rows_kept(const Call<T>& c, long heads) {
  constexpr long BLOCK = TILE_COLS * W<T>, CACHE = 1 << 20, MOST = 56 << 20;
  const long one = c.m * heads * (long)sizeof(T);
  if (one * BLOCK <= CACHE)
    for (long rows = 64; rows >= BLOCK; rows /= 2)
      if (rows == BLOCK || rows * one <= CACHE) return rows;
  long rows = c.h > 16 ? least(64, 2 * BLOCK) : 64;
  while (rows > W<T> && rows * one > MOST) rows /= 2;
  return rows;
}

// Runs work(unit, team number, thread number, team, rank) on all units. Returns whether any returned true.
template <class Work>
bool share_out(long threads, long size, long units, Work work) {
  const long teams = least(threads / size, units);
  std::vector<Team> team(teams);
  std::vector<long> turn(teams);
  for (Team& t : team) t.size = size;
  std::atomic<long> next{0};
  std::atomic<bool> strange{false};
  auto thread = [&](long number) {
    const long mine = number / size, rank = number % size;
    for (;;) {
      if (rank == 0) turn[mine] = next.fetch_add(1);
      team[mine].barrier();
      const long unit = turn[mine];
      if (unit >= units) return;
      if (work(unit, mine, number, team[mine], rank)) strange = true;
      team[mine].barrier();
    }
  };
#ifdef _OPENMP
  std::atomic<bool> alone{false};
#pragma omp parallel num_threads(teams * size)
  {
    if (omp_get_num_threads() == teams * size) thread(omp_get_thread_num());
    else alone = true;
  }
  if (!alone) return strange;
  // OpenMP started fewer threads (a limit, a nested region), and a team would wait for the missing ones
  // forever. This thread does all the work alone.
#endif
  size = 1;
  for (Team& t : team) t.size = 1;
  thread(0);
  return strange;
}

// Allocates scratch, then calls use(scratch of each team, scratch of each thread).
template <class OfTeam, class OfThread, class T, class Use>
int with_memory(const Call<T>& c, const Plan<T>& p, long teams, long size, Use use) {
  Parts counted;
  for (long t = 0; t < teams; ++t) OfTeam(counted, c, p);
  for (long t = 0; t < teams * size; ++t) OfThread(counted, c, p);
  Workspace space(counted.used);
  Parts parts{space.begin(), 0};
  std::vector<OfTeam> own;
  std::vector<OfThread> mine;
  for (long t = 0; t < teams; ++t) own.emplace_back(parts, c, p);
  for (long t = 0; t < teams * size; ++t) mine.emplace_back(parts, c, p);
  return use(own, mine);
}

template <class T>
int forward(Call<T>& c) try {
  const long rows = rows_kept(c, c.h);
  const Plan<T> p(c, rows, c.b * ((c.n + rows - 1) / rows));
  const long units = c.b * p.blocks, threads = threads_of(c.threads), size = team_size(threads, units, p.segments);
  return with_memory<ForwardTeam<T>, ForwardThread<T>>(
      c, p, least(threads / size, units), size, [&](auto& own, auto& mine) {
        return share_out(threads, size, units, [&](long unit, long t, long number, Team& team, long rank) {
          return forward_block(c, p, unit, own[t], mine[number], team, rank);
        });
      });
} catch (const std::exception&) {  // bad_alloc, or length_error from an oversized vector
  return NO_MEMORY;
}

template <class T>
int backward(Call<T>& c) try {
  const Plan<T> p(c, rows_kept(c, c.i + 2 * c.h), c.parts);
  const long threads = threads_of(c.threads), size = team_size(threads, c.parts, p.segments);
  const long teams = least(threads / size, c.parts);
  const long counts[] = {c.grad_logits.all ? c.logits.static_numbers() : 0,
                         c.grad_weights.all ? c.weights.static_numbers() : 0, c.grad_bias ? c.j : 0};
  T* const to[] = {c.grad_logits.all, c.grad_weights.all, c.grad_bias};
  std::vector<T> sums(c.parts * (counts[0] + counts[1] + counts[2]));
  const auto sums_of_part = [&](long part, int w) {
    return sums.data() + c.parts * (w > 0 ? counts[0] : 0) + c.parts * (w > 1 ? counts[1] : 0) + part * counts[w];
  };
  const int status = with_memory<BackwardTeam<T>, BackwardThread<T>>(c, p, teams, size, [&](auto& own, auto& mine) {
    return share_out(teams * size, size, c.parts, [&](long part, long t, long number, Team& team, long rank) {
      bool strange = false;
      T* const of_part[] = {sums_of_part(part, 0), sums_of_part(part, 1), sums_of_part(part, 2)};
      for (long b = c.first_of_part(part); b < c.first_of_part(part + 1); ++b) {
        strange |= backward_element(c, p, b, own[t], mine[number], of_part, team, rank);
        team.barrier();
      }
      return strange;
    });
  });
  for (int w = 0; w < 3; ++w)
    for (long at = 0; at < counts[w]; ++at) {
      T sum = 0;
      for (long part = 0; part < c.parts; ++part) sum += sums_of_part(part, w)[at];
      to[w][at] = sum;
    }
  return status;
} catch (const std::exception&) {  // bad_alloc, or length_error from an oversized vector
  return NO_MEMORY;
}

}  // namespace

// Build information, which binding.py compares with its own before the first call.
#ifndef SOURCES
#define SOURCES "unknown"  // setup.py passes the digest of the sources
#endif
#define NAME(name) #name ","
#define EXPORT extern "C" __attribute__((visibility("default")))
EXPORT const char* talking_heads_sources() { return SOURCES; }
EXPORT const char* talking_heads_set() { return SET; }
EXPORT const char* talking_heads_tensors() { return FOR_EACH_TENSOR(NAME); }
EXPORT int64_t talking_heads_version() { return VERSION; }
EXPORT int64_t talking_heads_size() { return sizeof(Arguments<float>); }

template <class T, class Function>
int checked(const Arguments<T>& a, Function function) {
  if (a.size != sizeof(a) || a.version != VERSION) return OTHER_VERSION;
  if (a.b < 1 || a.n < 1 || a.m < 1 || a.k < 1 || a.v < 1) return DONE;  // empty: nothing to write
  if (64.0 * (a.i + a.h + a.j) * (a.m + 64) * (a.k + a.v) > 0x1p60) return NO_MEMORY;  // sizes would overflow
  Call<T> call(a);
  return function(call);
}
EXPORT int forward_float(Arguments<float>* a) { return checked(*a, forward<float>); }
EXPORT int forward_double(Arguments<double>* a) { return checked(*a, forward<double>); }
EXPORT int backward_float(Arguments<float>* a) { return checked(*a, backward<float>); }
EXPORT int backward_double(Arguments<double>* a) { return checked(*a, backward<double>); }
