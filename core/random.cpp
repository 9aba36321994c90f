#include "core/random.h"

#include <cmath>
#include <numbers>

namespace switchyard {

std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  std::array<uint32_t, 4> c{static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
                            static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * c[0], b = uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(b),
         static_cast<uint32_t>(a >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(a)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

uint64_t key_of(uint64_t seed, std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u ^ seed;
  for (const unsigned char byte : name) hash = (hash ^ byte) * 0x100000001b3u;
  hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccdu;
  hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53u;
  return hash ^ (hash >> 33);
}

double normal_of(const std::array<uint32_t, 4>& words) {
  const double u = 1.0 - uniform_of(words[0]), v = uniform_of(words[1]);
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

namespace {

// Redrawn (at the next high counter) beyond three standard deviations.
double normal_at(uint64_t key, uint64_t index) {
  for (uint64_t attempt = 0;; ++attempt) {
    const double z = normal_of(philox(key, index, attempt));
    if (std::abs(z) <= 3.0) return z;
  }
}

}  // namespace

void fill_normal(const Tensor& host, uint64_t key, double stddev) {
  CHECK(host.device() == Device::kCpu, "initialisation happens on the host");
  const int64_t n = host.numel();
  visit_float(host.dtype(), [&]<class T>() {
    T* out = host.data<T>();
#pragma omp parallel for if (n > 4096)
    for (int64_t i = 0; i < n; ++i) out[i] = T(static_cast<Acc<T>>(normal_at(key, i) * stddev));
  });
}

}  // namespace switchyard
