// SPDX-License-Identifier: Apache-2.0
// What aes.cc and aes-wide.cc share: expanded keys, sectors with their vectors, and what the widest
// instructions (VAES) do with them.

#ifndef BLOCKWRIGHT_AES_WIDE_H
#define BLOCKWRIGHT_AES_WIDE_H

#if defined(__x86_64__)

#include <immintrin.h>

#include "aes.h"

#define AES_TARGET __attribute__((target("aes,sse4.1")))

namespace blockwright {

const size_t kAesBlock = 16;
const int kMostRounds = 14;
/** What the widest instructions encrypt at a time. */
const size_t kWideBytes = 256;

struct Schedule {
  __m128i keys[kMostRounds + 1];
  int rounds;
};

/** Each key of a schedule, four times. */
struct WideSchedule {
  alignas(64) uint8_t keys[kMostRounds + 1][4 * kAesBlock];
  int rounds;
};

/** Sectors one after another, and the vectors of each; those of XTS are encrypted already. */
struct Sectors {
  uint8_t* data;
  size_t count;
  size_t bytes;
  const uint8_t* vectors;
};

/** XTS: the tweak of the next block, which is this one times x. */
AES_TARGET inline __m128i DoubledTweak(__m128i tweak) {
  __m128i carries = _mm_shuffle_epi32(_mm_srai_epi32(tweak, 31), 0x93);
  __m128i folded = _mm_and_si128(carries, _mm_set_epi32(1, 1, 1, 0x87));
  return _mm_xor_si128(_mm_slli_epi32(tweak, 1), folded);
}

/** Whether the processor has the instructions; asked once. */
bool HasWideAes();

void WidenKeys(const Schedule& schedule, WideSchedule* wide);

/**
 * In place; sectors are multiples of kWideBytes, and the keys those of the way. Gives the number of
 * sectors done: when CBC encrypts, the last few are left to others.
 */
size_t WideCrypt(SectorMode mode, bool encrypts, const WideSchedule& wide, const Sectors& sectors);

}  // namespace blockwright

#endif
#endif
