// Replays a call that tests/kernels/cpu/test_neon.py recorded, on a processor without Python: reads the structure
// and the tensors that it points to from stdin, calls the kernel, writes the tensors to stdout.
//
//   "forward" | "backward", "float" | "double", structure, then for each tensor: its pointer's offset in the
//   structure, bytes, data; all numbers are int64
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "kernel.cpp"

namespace {
void must_read(void* to, size_t bytes) {
  if (std::fread(to, 1, bytes, stdin) != bytes) std::exit(3);
}
int64_t number() {
  int64_t x;
  must_read(&x, sizeof(x));
  return x;
}
}  // namespace

int main() {
  const bool is_backward = number(), is_double = number();
  std::vector<char> call(number());
  if (call.size() != sizeof(Arguments<float>)) return 4;
  must_read(call.data(), call.size());
  std::vector<std::vector<char>> tensors(number());
  for (auto& tensor : tensors) {
    const int64_t offset = number();
    tensor.resize(number());
    must_read(tensor.data(), tensor.size());
    const void* at = tensor.data();
    std::memcpy(call.data() + offset, &at, sizeof(at));
  }
  const int status = is_double ? (is_backward ? backward_double : forward_double)(reinterpret_cast<Arguments<double>*>(call.data()))
                               : (is_backward ? backward_float : forward_float)(reinterpret_cast<Arguments<float>*>(call.data()));
  for (auto& tensor : tensors) std::fwrite(tensor.data(), 1, tensor.size(), stdout);
  return status;
}
