// SPDX-License-Identifier: Apache-2.0
// Which digests there are, and what the processor can do.

#include "pbkdf2.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace blockwright {

const Deriver* DeriverOf(const char* digest) {
  static const struct {
    const char* name;
    const Deriver* (*deriver)();
  } kDigests[] = {{"sha1", Sha1Deriver},
                  {"sha224", Sha224Deriver},
                  {"sha256", Sha256Deriver},
                  {"sha384", Sha384Deriver},
                  {"sha512", Sha512Deriver},
                  {"ripemd160", Ripemd160Deriver}};
  for (const auto& each : kDigests) {
    if (strcmp(each.name, digest) == 0) return each.deriver();
  }
  return nullptr;
}

bool HasShaInstructions() {
#if defined(__x86_64__)
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  return (ebx & (1u << 29)) != 0 && __builtin_cpu_supports("sse4.1");
#else
  return false;
#endif
}

}  // namespace blockwright
